"""Commands that run a study: launch and resume."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.options import (
    Json,
    LogFile,
    LogFormat,
    MetricsHost,
    MetricsPort,
    Name,
    RayAddress,
    Storage,
    emit,
    emit_json,
    say,
)
from hpo.errors import InvalidStudy

if TYPE_CHECKING:  # hpo --help must not load the store
    from hpo.run.coordinator import Outcome
    from hpo.store.store import Store


def launch(
    study: Annotated[str, typer.Argument(help="Path of a study file, or the name of a shipped one.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. budget.trials=50."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name in the store. Default: the file's.")] = None,
    storage: Storage = None,
    trials: Annotated[int | None, typer.Option(help="Budget of trials.")] = None,
    hours: Annotated[float | None, typer.Option(help="Budget of hours.")] = None,
    gpu_hours: Annotated[float | None, typer.Option(help="Budget of GPU-hours.")] = None,
    joules: Annotated[float | None, typer.Option(help="Budget of counted energy, in J.")] = None,
    workers: Annotated[int | None, typer.Option(help="Workers.")] = None,
    warm_start: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A study in the store whose trials to learn from; repeatable."),
    ] = None,
    ray_address: RayAddress = None,
    resume_existing: Annotated[
        bool, typer.Option("--resume", help="If the study exists, go on with it instead of refusing.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Run the coordinator as a Ray job on the cluster and return.")
    ] = False,
    log_format: LogFormat = None,
    log_file: LogFile = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    as_json: Json = False,
) -> None:
    """Launch a study and run it to the end of its budget.

    Example: hpo launch quickstart --trials 30 --workers 2
    """
    from hpo.cli.live import Telling, watching
    from hpo.run.amending import check_same_question
    from hpo.run.detach import create, submit
    from hpo.run.heartbeat import STORE_PATIENCE_S
    from hpo.run.launch import for_model
    from hpo.run.launch import launch as run_launch
    from hpo.run.launch import resume as run_resume
    from hpo.run.more import More
    from hpo.store.store import Store
    from hpo.study_file import read_study

    telling = Telling(storage, log_format, log_file, metrics_port, metrics_host)
    more = More(trials, hours, gpu_hours, joules)
    given = [f"budget.{key}={value}" for key, value in more.budgets.items()]
    given += [] if workers is None else [f"run.workers={workers}"]
    given += [f"search.warm_start=[{', '.join(warm_start)}]"] if warm_start else []
    document = read_study(study, [*(overrides or []), *given], name)
    with Store.open(storage, patience_s=STORE_PATIENCE_S) as store:
        exists = any(summary.name == document.name for summary in store.studies())
        if exists and resume_existing:
            with located(study):
                check_same_question(store.study(document.name).study, for_model(document), study)
        if detach:
            if not (exists and resume_existing):
                with located(study):
                    create(store, document)
            emit(submit(document.name, storage, ray_address))
            return
        with located(study), watching(store, document, quiet=as_json, telling=telling) as watcher:
            if exists and resume_existing:
                outcome = run_resume(store, document.name, watcher, more=more, address=ray_address)
            else:
                outcome = run_launch(store, document, watcher, ray_address)
        _finish(store, document.name, outcome, as_json)


def resume(
    name: Name,
    storage: Storage = None,
    trials: Annotated[int | None, typer.Option(help="New budget of trials, those done included.")] = None,
    hours: Annotated[float | None, typer.Option(help="New budget of hours, likewise.")] = None,
    gpu_hours: Annotated[float | None, typer.Option(help="New budget of GPU-hours, likewise.")] = None,
    joules: Annotated[float | None, typer.Option(help="New budget of counted energy in J, likewise.")] = None,
    no_plateau: Annotated[
        bool, typer.Option("--no-plateau", help="Go on without the study's plateau rule.")
    ] = False,
    remeasure: Annotated[
        bool, typer.Option("--remeasure", help="If it is finished: measure its front again on this device.")
    ] = False,
    allow_drift: Annotated[
        bool,
        typer.Option("--allow-drift", help="Go on though model, texts or versions have changed; recorded."),
    ] = False,
    ray_address: RayAddress = None,
    log_format: LogFormat = None,
    log_file: LogFile = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    as_json: Json = False,
) -> None:
    """Go on with a study: after a stop, after a crash, with a bigger budget, or on another machine.

    Example: hpo resume quickstart --trials 60
    """
    from hpo.cli.live import Telling, watching
    from hpo.run.heartbeat import STORE_PATIENCE_S
    from hpo.run.launch import resume as run_resume
    from hpo.run.more import More, amended
    from hpo.store.store import Store

    telling = Telling(storage, log_format, log_file, metrics_port, metrics_host)
    more = More(trials, hours, gpu_hours, joules, no_plateau, remeasure, allow_drift)
    with Store.open(storage, patience_s=STORE_PATIENCE_S) as store:
        study = amended(store.study(name), more)
        with watching(store, study, quiet=as_json, telling=telling) as watcher:
            outcome = run_resume(store, name, watcher, more=more, address=ray_address)
        _finish(store, name, outcome, as_json)


@contextmanager
def located(reference: str) -> Iterator[None]:
    """Give errors that are found after reading the file and line they are about."""
    from hpo.study_file import locate

    try:
        yield
    except InvalidStudy as error:
        if not error.where:
            raise
        raise locate(error, reference) from None


def _finish(store: "Store", name: str, outcome: "Outcome", as_json: bool) -> None:
    """Print how it ended and the front, and leave with the exit code that says so."""
    from hpo.cli.tables import front_mapping, front_table

    record, trials, front = store.study(name), store.trials(name), store.front(name)
    if as_json:
        emit_json(front_mapping(record, trials, front))
    else:
        emit(front_table(record, trials, front))
        say(f"study {name} is {outcome.state}: {outcome.message}")
        say(f"next: hpo front {name} | hpo dashboard | hpo export {name} --knee --out DIR --verify")
    if outcome.interrupted:
        raise typer.Exit(130)
    if outcome.state == "failed":
        raise typer.Exit(1)
