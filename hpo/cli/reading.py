"""Commands that read the store: status, front, show. They work while no coordinator runs."""

import csv
import sys
import time
from typing import Annotated

import typer

from hpo.cli.options import Json, Name, Storage, emit, emit_json

_WATCH_S = 2.0
_CLEAR = "\x1b[2J\x1b[H"


def status(
    name: Annotated[str | None, typer.Argument(help="Name of the study. Default: all of them.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds.")] = False,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Show where studies stand: progress, running trials, failures by cause.

    Example: hpo status quickstart --watch
    """
    from hpo.store.store import Store

    with Store.open(storage, read_only=True) as store:
        while True:
            text = _status_text(store, name, as_json)
            if watch and sys.stdout.isatty():
                emit(_CLEAR)
            emit(text)
            if not watch:
                return
            time.sleep(_WATCH_S)


def _status_text(store: object, name: str | None, as_json: bool) -> str:
    import json
    from dataclasses import asdict

    from hpo.cli.tables import studies_table, study_status
    from hpo.store.spending import spent_of
    from hpo.store.store import Store

    assert isinstance(store, Store)
    if name is None:
        studies = store.studies()
        if as_json:
            return json.dumps([asdict(study) for study in studies], indent=2)
        return studies_table(studies)
    record, trials, front = store.study(name), store.trials(name), store.front(name)
    spent = spent_of(record, trials, store.lost_work(name))
    skills = store.skills(name)
    if not as_json:
        return study_status(record, trials, front, spent, skills, time.time())
    counts: dict[str, int] = {}
    for trial in trials:
        counts[str(trial.state)] = counts.get(str(trial.state), 0) + 1
    holder = store.holder(name)
    return json.dumps(
        {
            "study": name,
            "state": str(record.state),
            "message": record.message,
            "requested": str(record.requested),
            "counts": counts,
            "budget": record.study.budget.model_dump(),
            "hours": record.hours,
            "spent": spent.to_mapping(),
            "model": [skill.to_mapping() for skill in skills],
            "hypervolume": None if front is None else front.hypervolume,
            "front": [] if front is None else list(front.members),
            "coordinator": None
            if holder is None
            else {"owner": holder.owner, "expires_at": holder.expires_at},
            "running": [t.to_mapping() for t in trials if t.state == "running"],
        },
        indent=2,
    )


def front(
    name: Name,
    limits: Annotated[
        list[str] | None,
        typer.Option("--limit", metavar="METRIC<=VALUE", help="Keep members within this only; repeatable."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Print the Pareto front of a study, with the dense model beside it.

    Example: hpo front quickstart --limit 'weight_memory<=1000000'
    """
    from dataclasses import replace

    from hpo.cli.tables import front_mapping, front_members, front_table
    from hpo.deliver.choose import within
    from hpo.store.store import Store

    with Store.open(storage, read_only=True) as store:
        record, trials, newest = store.study(name), store.trials(name), store.front(name)
    if newest is not None and limits:
        kept = within(front_members(trials, newest), limits)
        newest = replace(newest, members=tuple(t.number for t in kept))
    if as_json:
        emit_json(front_mapping(record, trials, newest))
    elif as_csv:
        metrics = [o.metric for o in record.study.objectives]
        knobs = sorted({k for t in trials for k in t.candidate.values})
        writer = csv.writer(sys.stdout)
        writer.writerow(["trial", *metrics, *knobs])
        for t in front_members(trials, newest):
            writer.writerow(
                [t.number, *(t.value(m) for m in metrics), *(t.candidate.values.get(k, "") for k in knobs)]
            )
    else:
        emit(front_table(record, trials, newest))


def show(
    name: Name,
    trial: Annotated[int, typer.Argument(help="Number of the trial.")],
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Show one trial: candidate, plan layer by layer, measurements with spread and source.

    Example: hpo show quickstart 7
    """
    from hpo.cli.tables import is_inside, trial_page
    from hpo.store.store import Store

    with Store.open(storage, read_only=True) as store:
        record, trials = store.study(name), store.trials(name)
        found, layers = store.trial(name, trial), store.plan(name, trial)
    if as_json:
        emit_json(found.to_mapping() | {"plan": [layer.to_mapping() for layer in layers]})
    else:
        emit(trial_page(record, found, layers, is_inside(record, trials, found)))
