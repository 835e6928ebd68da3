"""Commands that read the store: status, front, show. They work while no coordinator runs."""

import csv
import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer

from hpo.cli.options import Json, Name, Storage, emit, emit_json


def status(
    name: Annotated[str | None, typer.Argument(help="Name of the study. Default: all of them.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep it in view until the study is over; plain lines in a pipe.")
    ] = False,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Show where studies stand: progress, running trials and their workers, failures and retries by cause.

    Example: hpo status quickstart --watch
    """
    from hpo.cli.tables import studies_table, study_status
    from hpo.cli.watching import standing_mapping, watch_studies, watch_study
    from hpo.store.store import Store
    from hpo.watch.standing import Standings

    with Store.open(storage, read_only=True) as store:
        if watch and name is not None:
            watch_study(store, name, as_json)
        elif watch:
            watch_studies(store, as_json)
        elif name is None:
            studies = store.studies()
            emit_json([asdict(study) for study in studies]) if as_json else emit(studies_table(studies))
        else:
            standing = Standings(store, name).read(time.time())
            emit_json(standing_mapping(standing)) if as_json else emit(study_status(standing))


def front(
    name: Name,
    limits: Annotated[
        list[str] | None,
        typer.Option("--limit", metavar="METRIC<=VALUE", help="Keep members within this only; repeatable."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    device: Annotated[
        str | None,
        typer.Option(help="The front on one of several devices: a part of its name. Default: the last one."),
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Print the Pareto front of a study, with the dense model beside it.

    Example: hpo front quickstart --limit 'weight_memory<=1000000'
    """
    from dataclasses import replace

    from hpo.cli.tables import front_mapping, front_members, front_table
    from hpo.deliver.by_device import front_of, named
    from hpo.deliver.choose import within
    from hpo.format import count_text
    from hpo.store.store import Store

    with Store.open(storage, read_only=True) as store:
        record, trials, newest = store.study(name), store.trials(name), store.front(name)
        devices = store.devices(name)
        if device is not None:
            trials = store.trials_on(name, named(devices, device).name)
            newest = front_of(record.study.objectives, trials)
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
        if len(devices) > 1 and device is None:
            others = "; ".join(f"{d.name} ({count_text(d.trials, 'trial')})" for d in devices)
            emit(f"measured on several devices, of which the last counts: {others}; see one with --device")


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
