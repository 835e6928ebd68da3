"""What a study would cost, and what can be named in one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from hpo import registry
from hpo.cli.tables import rendered
from hpo.compress.order import STAGES
from hpo.format import value_text
from hpo.metric import METRICS
from hpo.run.anchors import anchors
from hpo.run.launch import check_setup, check_study, for_model
from hpo.run.preview import pool
from hpo.run.workbench import Workbench
from hpo.study import Study
from hpo.study_file import question, shipped


@dataclass(frozen=True)
class PlannedRow:
    """A candidate and what is known exactly of it."""

    origin: str
    candidate: str
    plan: str
    exact: Mapping[str, float]


@dataclass(frozen=True)
class Forecast:
    """What a study would do."""

    study: str
    trials: int | None
    hours: float | None
    gpu_hours: float | None
    joules: float | None
    budget: str
    """All of these in words."""
    layers: int
    linear_parameters: int
    dense_bytes: int
    candidates: int | None
    """An upper bound; None if uncountable."""
    distinct_plans: int
    """Among the previewed candidates."""
    previewed: int
    refused: Mapping[str, int]
    """Reason -> how many of the previewed candidates."""
    rows: Sequence[PlannedRow]

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self)


def forecast(study: Study) -> Forecast:
    """Profile the model and preview the study.

    Raises:
        InvalidStudy: anything `hpo launch` would refuse.
    """
    check_study(study)
    study = for_model(study)
    bench = Workbench(study.to_mapping())
    setup = bench.setup()
    problem = check_setup(study, setup)
    architecture = bench.profile.architecture
    candidates, preview = pool(problem)
    reasons = [reason.splitlines()[0] for reason in preview.refusals if reason]
    rows = []
    for origin, candidate in anchors(problem):
        seen = problem.preview([candidate])
        values = zip(problem.exact, seen.exact[0], strict=True)
        rows.append(PlannedRow(origin, str(candidate), seen.plans[0], {m: float(v) for m, v in values}))
    return Forecast(
        study=study.name,
        trials=study.budget.trials,
        hours=study.budget.hours,
        gpu_hours=study.budget.gpu_hours,
        joules=study.budget.joules,
        budget=str(study.budget),
        layers=len(architecture.layers),
        linear_parameters=architecture.linear_parameters,
        dense_bytes=architecture.other_bytes + architecture.linear_parameters * architecture.weight_bits // 8,
        candidates=study.space.size,
        distinct_plans=len({plan for plan in preview.plans if plan}),
        previewed=len(candidates),
        refused={reason: reasons.count(reason) for reason in sorted(set(reasons))},
        rows=rows,
    )


def forecast_table(found: Forecast) -> str:
    """Return a forecast for people."""
    count = "uncountably many" if found.candidates is None else f"at most {found.candidates:,}"
    head = [
        f"study {found.study}: {found.budget}",
        f"model: {found.layers} linear layers, {found.linear_parameters:,} weights in them, "
        f"{value_text(found.dense_bytes, 'bytes')} in all",
        f"space: {count} candidates; {found.distinct_plans} distinct plans among {found.previewed} previewed",
    ]
    head += [f"refused: {n} candidates: {reason}" for reason, n in found.refused.items()]
    table = Table(box=None, pad_edge=False)
    metrics = list(found.rows[0].exact) if found.rows else []
    for column in ("anchor", *(m.replace("_", " ") for m in metrics), "candidate"):
        table.add_column(column, justify="right" if column in metrics else "left")
    for row in found.rows:
        values = [value_text(row.exact[m], METRICS[m].unit) for m in metrics]
        table.add_row(row.origin.removeprefix("anchor:"), *values, row.candidate)
    return rendered(*head, "exact before anything is run:", table)


def listing(what: str) -> list[dict[str, str]]:
    """Return what can be named in a study file: rows with ``name`` and more."""
    if what == "methods":
        rows = []
        for name in registry.names("method"):
            method = registry.load("method", name)
            knobs = ", ".join(method.knob_type.model_fields)
            rows.append(
                {
                    "name": name,
                    "stage": f"[{method.stage}]",
                    "summary": method.summary,
                    "paper": f"({method.paper})",
                    "knobs": f"knobs: {knobs}",
                }
            )
        return sorted(rows, key=lambda row: [row["stage"] == f"[{stage}]" for stage in STAGES], reverse=True)
    if what == "samplers":
        return [
            {"name": n, "summary": registry.load("sampler", n).summary} for n in registry.names("sampler")
        ]
    if what == "metrics":
        return [
            {"name": m.name, "unit": f"[{m.unit}, {m.better} is better, {m.source}]", "summary": m.summary}
            for m in METRICS.values()
        ]
    kind = {"spaces": "space", "studies": "study"}[what]
    return [{"name": name, "question": question(kind, name)} for name in shipped(kind)]
