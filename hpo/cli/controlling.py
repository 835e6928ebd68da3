"""Commands that ask a running coordinator for something, through the store alone."""

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from hpo.cli.launching import located
from hpo.cli.options import Name, Storage, emit
from hpo.errors import UsageError

if TYPE_CHECKING:
    from hpo.store.store import Store


def stop(name: Name, storage: Storage = None) -> None:
    """Stop a study gently: nothing new starts, running trials finish. It can be resumed.

    Example: hpo stop quickstart
    """
    _request(name, storage, "drain")


def cancel(name: Name, storage: Storage = None) -> None:
    """Stop a study now: running trials go back to the queue. It can be resumed.

    Example: hpo cancel quickstart
    """
    _request(name, storage, "cancel")


def retry(
    name: Name,
    trials: Annotated[
        list[int] | None, typer.Argument(help="Numbers of failed trials. Default: all of them.")
    ] = None,
    storage: Storage = None,
) -> None:
    """Try failed trials again, each as a new trial that counts in the budget.

    Example: hpo retry quickstart 12 15
    """
    from hpo.store.store import Store
    from hpo.trial import TrialState

    with Store.open(storage) as store:
        known = {trial.number: trial for trial in store.trials(name)}
        failed = [number for number, trial in known.items() if trial.state is TrialState.FAILED]
        for number in trials or []:
            if number not in failed:
                state = known[number].state if number in known else "not there"
                raise UsageError(f"trial {number} of study {name} is {state}; failed ones can be retried")
        for number in trials or failed:
            store.wish(name, known[number].candidate, f"retry:{number}", time.time())
        asked = ", ".join(map(str, trials or failed)) or "none: no trial has failed"
        emit(f"asked to try again: {asked}")
        if trials or failed:
            emit(_when(store, name))


def add(
    name: Name,
    values: Annotated[
        list[str], typer.Argument(help="The candidate: parameter=value ..., as `hpo show` prints it.")
    ],
    storage: Storage = None,
) -> None:
    """Add a candidate of your own to a study; it counts in the budget.

    Example: hpo add quickstart factorise=svd factorise.budget=rank factorise.rank=20 heal=none
    """
    from hpo.store.store import Store

    with Store.open(storage) as store:
        candidate = store.study(name).study.space.candidate(dict(map(_pair, values)))
        store.wish(name, candidate, "given:person", time.time())
        emit(f"asked for {candidate}")
        emit(_when(store, name))


def amend(
    name: Name,
    study: Annotated[
        str | None, typer.Argument(help="A study file that asks the new question. Default: the stored study.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, e.g. objectives.0.limit=40."),
    ] = None,
    storage: Storage = None,
) -> None:
    """Change what a study asks: add or drop an objective, tighten a limit, widen the space, raise the budget.

    What has been tried stays. What the new question needs and old trials lack is measured at the next resume.

    Example: hpo amend quickstart --set "objectives=[perplexity, weight_memory, decode_latency]"
    """
    from hpo.run.amending import amend as run_amend
    from hpo.run.launch import check_study, for_model
    from hpo.store.store import Store
    from hpo.study_file import changed, read_study

    if study is None and not overrides:
        raise UsageError("nothing to change is named", "give a study file, or --set KEY=VALUE")
    with Store.open(storage) as store:
        old = store.study(name).study
        new = changed(old, overrides or []) if study is None else read_study(study, overrides or [], name)
        with located(study) if study is not None else nullcontext():
            check_study(new)
            keys = run_amend(store, for_model(new), "amended by hpo amend")
        emit(f"study {name} has changed in: {', '.join(keys)}; go on with: hpo resume {name}")


def _pair(text: str) -> tuple[str, float | int | str | bool]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise UsageError(f"{text!r} is no parameter=value", "e.g. factorise.keep_ratio=0.4")
    return key, yaml.safe_load(value)


def _when(store: "Store", name: str) -> str:
    """Return when a wish will be seen to."""
    holder = store.holder(name)
    if holder is None or holder.expires_at <= time.time():
        more = "with more --trials if its budget is used"
        return f"no coordinator runs study {name}; go on with: hpo resume {name} ({more})"
    return f"{holder.owner} adds it next; see: hpo status {name}"


def _request(name: str, storage: str | None, what: str) -> None:
    from hpo.store.store import Store
    from hpo.store.values import Request

    with Store.open(storage) as store:
        record, now = store.study(name), time.time()
        holder = store.holder(name)
        if holder is None or holder.expires_at <= now:
            emit(f"study {name} is {record.state}; no coordinator runs it, so there is nothing to {what}")
            return
        store.request(name, Request(what), now)
        emit(f"asked {holder.owner} to {what} study {name}; go on later with: hpo resume {name}")
