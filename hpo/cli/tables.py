"""Fronts, trials and studies as tables for a terminal and as mappings for programs."""

import io
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hpo.format import (
    count_text,
    duration_text,
    note_text,
    percent_text,
    spread_text,
    time_text,
    value_text,
    words,
)
from hpo.pareto import knee
from hpo.problem import losses, within_limits
from hpo.run.ending import growth_of
from hpo.run.phases import Phases
from hpo.store.spending import Spent
from hpo.store.values import Front, StudyRecord, StudySummary
from hpo.trial import LayerRecord, Trial
from hpo.watch.standing import Standing

_WIDTH = 160
"""Columns of a table that goes into a pipe; a terminal has its own width."""


def rendered(*parts: Table | str) -> str:
    """Return tables and lines as text, as wide as the terminal."""
    out = io.StringIO()
    console = Console(file=out, width=None if Console().is_terminal else _WIDTH, highlight=False)
    for part in parts:
        console.print(part, markup=False, soft_wrap=isinstance(part, str))
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def front_members(trials: Sequence[Trial], front: Front | None) -> list[Trial]:
    """Return the trials of a front, by number."""
    numbers = set(front.members) if front else set()
    return [trial for trial in trials if trial.number in numbers]


def knee_of(record: StudyRecord, members: Sequence[Trial]) -> Trial | None:
    """Return the member nearest to the ideal of the front; None without members."""
    if not members:
        return None
    return members[knee(losses(record.study.objectives, members))]


def front_table(record: StudyRecord, trials: Sequence[Trial], front: Front | None) -> str:
    """Return the front as a table, best first objective first, with the dense model to compare."""
    members = front_members(trials, front)
    objectives = record.study.objectives
    table = Table(box=None, pad_edge=False)
    table.add_column("trial", justify="right")
    for o in objectives:
        modelled = any((m := t.measurement(o.metric)) and m.source == "modelled" for t in members)
        mark = " (modelled)" if modelled else ""
        table.add_column(f"{words(o.metric)}{mark}", justify="right")
    table.add_column("candidate", overflow="fold")
    best = knee_of(record, members)
    dense = next((t for t in trials if t.is_dense), None)
    first = objectives[0]
    shown = sorted(members, key=lambda t: first.loss(t.value(first.metric) or 0.0))
    if dense is not None and dense not in shown:
        shown = [dense, *shown]
    for trial in shown:
        mark = "*" if best is not None and trial.number == best.number else ""
        table.add_row(
            f"{mark}{trial.number}", *(_value(trial, o.metric) for o in objectives), str(trial.candidate)
        )
    share = "" if front is None or front.hypervolume is None else f", hypervolume {front.hypervolume:.4f}"
    head = (
        f"front of {record.study.name}: {count_text(len(members), 'member')} of {len(trials)} trials{share}"
    )
    foot = (
        "* the knee: nearest to the best of every objective at once"
        if best
        else "no trial keeps every limit yet"
    )
    return rendered(head, table, foot)


def _value(trial: Trial, metric: str) -> str:
    found = trial.measurement(metric)
    return "-" if found is None else spread_text(found.value, found.spread, found.unit)


def front_mapping(record: StudyRecord, trials: Sequence[Trial], front: Front | None) -> dict[str, Any]:
    """Return the front for programs: members with all their measurements."""
    members = front_members(trials, front)
    best = knee_of(record, members)
    return {
        "study": record.study.name,
        "state": str(record.state),
        "message": record.message,
        "trials": len(trials),
        "objectives": [o.model_dump(mode="json") for o in record.study.objectives],
        "hypervolume": None if front is None else front.hypervolume,
        "reference": [] if front is None else list(front.reference),
        "knee": None if best is None else best.number,
        "members": [trial.to_mapping() for trial in members],
    }


def studies_table(studies: Sequence[StudySummary]) -> str:
    """Return one line a study."""
    table = Table(box=None, pad_edge=False)
    for column in ("study", "state", "trials", "front", "hypervolume", "failed", "updated"):
        table.add_column(column, justify="right" if column in ("trials", "front", "hypervolume") else "left")
    for s in studies:
        done = sum(n for state, n in s.counts.items() if state not in ("waiting", "running"))
        budget = "" if s.budget_trials is None else f"/{s.budget_trials}"
        causes = ", ".join(f"{n} {words(cause)}" for cause, n in sorted(s.causes.items()))
        table.add_row(
            s.name,
            str(s.state),
            f"{done}{budget}",
            str(s.front_size),
            "-" if s.hypervolume is None else f"{s.hypervolume:.4f}",
            causes or "-",
            time_text(s.updated_at),
        )
    return rendered(table) if studies else "the store holds no study yet; begin with: hpo launch quickstart"


def study_status(standing: Standing) -> str:
    """Return where one study stands."""
    record, study, spent, front = standing.record, standing.record.study, standing.spent, standing.front
    lines = [f"study {study.name}: {record.state}" + (f" ({record.message})" if record.message else "")]
    if record.requested != "none":
        lines.append(f"asked to {record.requested}")
    lines.append(coordinator_text(standing))
    lines.append(trials_text(standing))
    lines.append(
        f"time: {duration_text(record.hours * 3600)}; busy {duration_text(spent.work.seconds)} on workers"
    )
    lines.append(f"spent: {spent.text(study.budget)}")
    if study.search.plateau is not None:
        lines.append(f"plateau rule: {_growth(record, standing.trials, spent)}")
    if phase := phase_text(standing):
        lines.append(phase)
    if used := record.environment.get("warm_start"):
        lines.append(f"warm start from {used}")
    lines += [f"model of {skill.words}" for skill in standing.skills]
    if front is not None:
        share = "" if front.hypervolume is None else f", hypervolume {front.hypervolume:.4f}"
        lines.append(
            f"front: {count_text(len(front.members), 'member')}{share}, last changed {time_text(front.at)}"
        )
    return rendered(*lines, *_running(standing), *_failures(standing.trials), *retries_text(standing))


def coordinator_text(standing: Standing) -> str:
    """Return who runs the study, and whether the lease still holds."""
    holder, left = standing.holder, standing.lease_s
    if holder is None or left is None:
        return "coordinator: none"
    if left > 0:
        return f"coordinator: {holder.owner}, epoch {holder.epoch}, lease for another {duration_text(left)}"
    return (
        f"coordinator: {holder.owner} is gone, its lease ran out {duration_text(-left)} ago; "
        f"go on with: hpo resume {standing.name}"
    )


def trials_text(standing: Standing) -> str:
    """Return how many trials there are in each state."""
    counts = sorted((str(state), n) for state, n in standing.counts.items())
    return f"trials: {len(standing.trials)}" + "".join(f", {n} {state}" for state, n in counts)


def phase_text(standing: Standing) -> str:
    """Return that the search refines what it has found, with how much is left; nothing before it does."""
    study = standing.record.study
    uses = standing.spent.uses(study.budget)
    used = max((use.share for use in uses if use.unit != "trials"), default=0.0)
    if not study.search.refine or Phases(study, lambda: used).sampled(len(standing.trials)) > 0:
        return ""
    return (
        f"refining: the last {percent_text(study.search.refine)} of the budget go into what is on the front"
    )


def retries_text(standing: Standing) -> list[str]:
    """Return how often trials were tried again, by cause."""
    causes = ", ".join(f"{words(cause)} {n}" for cause, n in sorted(standing.retries.items()))
    return [f"tried again: {causes}"] if causes else []


def _growth(record: StudyRecord, trials: Sequence[Trial], spent: Spent) -> str:
    rule = record.study.search.plateau
    assert rule is not None
    found = growth_of(record.study, trials, spent.gpus)
    if found is None:
        return f"too early to tell; it wants {rule.trials} trials after the start design"
    return found.words(rule.gain_per_hour, on_gpu=spent.gpus > 0)


def _running(standing: Standing) -> list[Table | str]:
    if not standing.running:
        return []
    return ["running:", running_table(standing)]


def running_table(standing: Standing) -> Table:
    """Return a row for each running trial: its worker, and for how long that has been silent."""
    table = Table(box=None, pad_edge=False)
    for column in ("trial", "worker", "attempt", "since", "last heard of", "stages done", "candidate"):
        table.add_column(column)
    for t in standing.running:
        silent = standing.silent_s(t)
        table.add_row(
            str(t.number),
            Text(t.worker),
            str(t.attempt),
            duration_text(max(standing.at - (t.started_at or standing.at), 0.0)),
            "never" if silent is None else f"{duration_text(silent)} ago",
            ", ".join(s.stage for s in t.stages) or "-",
            Text(str(t.candidate)),
        )
    return table


def _failures(trials: Sequence[Trial]) -> list[str]:
    failed = [t for t in trials if t.cause is not None]
    lines = []
    for cause in sorted({t.cause for t in failed if t.cause}):
        of_cause = [t for t in failed if t.cause == cause]
        last = of_cause[-1]
        message = last.message.splitlines()[0] if last.message else ""
        lines.append(f"failed, {words(cause)}: {len(of_cause)}; last: trial {last.number}: {message}")
    return lines


def trial_page(record: StudyRecord, trial: Trial, layers: Sequence[LayerRecord], inside: bool) -> str:
    """Return everything about one trial."""
    head = [
        f"trial {trial.number} of {record.study.name}: {trial.state}, attempt {trial.attempt}",
        f"asked by: {trial.origin}",
        f"candidate: {trial.candidate}",
        f"plan: {trial.plan_hash}",
    ]
    if trial.cause:
        head.append(f"failed: {trial.cause}: {trial.message}")
    if trial.state == "completed":
        head.append("within every limit" if inside else "breaks a limit of the study")
    stages = ", ".join(
        f"{s.stage} {duration_text(s.seconds)}"
        + ("" if s.joules is None else f" ({value_text(1e3 * s.joules, 'mJ')})")
        for s in trial.stages
    )
    notes = ", ".join(f"{words(name)} {note_text(value)}" for name, value in trial.notes.items())
    head += [f"stages: {stages or '-'}"] + ([f"notes: {notes}"] if notes else [])
    return rendered(*head, _measurements(trial), _layers(layers))


def _measurements(trial: Trial) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("metric", "value", "source", "repeats", "device", "note"):
        table.add_column(column)
    for m in trial.measurements:
        table.add_row(
            m.metric, spread_text(m.value, m.spread, m.unit), str(m.source), str(m.repeats), m.device, m.note
        )
    return table


def _layers(layers: Sequence[LayerRecord]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("layer", "kind", "size", "kept"):
        table.add_column(column)
    for layer in layers:
        table.add_row(
            layer.layer, layer.kind, layer.size, percent_text(layer.parameters / layer.dense_parameters)
        )
    return table


def is_inside(record: StudyRecord, trials: Sequence[Trial], trial: Trial) -> bool:
    """Whether a trial keeps every limit of its study."""
    dense = [t for t in trials if t.is_dense]
    return bool(within_limits(record.study.objectives, [*dense, trial])[-1])
