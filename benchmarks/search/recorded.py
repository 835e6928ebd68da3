"""A recorded table as a search problem: every candidate of a space that was really compressed and measured.

`benchmarks.record` wrote the table; see there for what its seconds and latencies are. Columns: ``origin`` (an
anchor's, or ``space``), ``values`` of the candidate (JSON), ``plan`` (empty where it is refused, with the
``refusal``), ``feature_0`` and so on, the exact objectives, the measured ones with their spread, the tiers
(``screen_kl``, ``heal_nll_short``, ``heal_nll_after``), ``failure`` (the cause, if it failed), ``prefix``
(plans that share one are healed once) and the seconds of each stage.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.search.simulation import Answer, Simulation
from hpo.compress.features import damage_of
from hpo.pareto import nondominated
from hpo.problem import Preview, Problem
from hpo.space import Candidate
from hpo.study import Study
from hpo.study_file import read_study
from hpo.trial import Cause, Note, StageTime

DATA = Path(__file__).parents[1] / "data"
DAMAGE = 4
"""The last of the features that tell of damage; see `hpo.compress.features`."""
STAGES = ("compress", "screen", "heal", "heal_on", "round", "measure", "time")
SHOWN = {"screen_kl": "screen", "heal_nll_short": "heal", "heal_nll_after": "heal_on"}
"""Tier -> the stage that shows it, of a healing that pauses."""
MEASURED = ("perplexity", "prefill_latency_ratio")
TIMED = "prefill_latency_ratio"
EXACT = ("weight_memory", "energy")


@cache
def recorded() -> Simulation:
    """Return the table of `benchmarks/data/recorded.csv.gz`.

    What has not been recorded (yet) counts as refused, for everybody.
    """
    table = pd.read_csv(DATA / "recorded.csv.gz", keep_default_na=False, na_values=[""])
    return simulation(read_study(str(DATA / "recorded.yaml")), table)


def simulation(study: Study, table: pd.DataFrame) -> Simulation:
    """Return the search problem of a table and the study it was recorded for."""
    records = ({str(name): value for name, value in row.items()} for row in table.to_dict("records"))
    rows: dict[Candidate, Mapping[str, Any]] = {}
    for row in records:  # anchors stand first, and may be of the space
        rows.setdefault(Candidate.of(json.loads(row["values"])), row)
    features = sorted((c for c in table.columns if c.startswith("feature_")), key=lambda c: int(c[8:]))
    problem = Problem(study.space, study.objectives, EXACT, _preview(rows, features), tuple(SHOWN))
    anchors = tuple(
        (row["origin"], candidate)
        for candidate, row in rows.items()
        if row["origin"] != "space" and _is_known(row)
    )

    def truth(candidate: Candidate) -> Answer:
        row = rows[candidate]
        if isinstance(row["failure"], str):
            return Answer(Cause(row["failure"]), _stages(row))
        values = {metric: float(row[metric]) for metric in (*MEASURED, *EXACT)}
        shown = {**SHOWN, "heal_nll_after": "heal_on" if row["heal_on_s"] > 0 else "heal"}
        return Answer(
            values,
            _stages(row),
            _tiers(row),
            shown,
            spreads={TIMED: float(row[f"{TIMED}_spread"])},
            repeats=study.run.latency_repeats,
            shared=_shared(row),
            spared=("heal", "heal_on"),
        )

    made = Simulation("recorded", problem, truth, anchors, best=1.0)
    known = [candidate for candidate, row in rows.items() if _is_known(row)]
    everything = [*made.start(), *(made.trial(i, candidate, "space") for i, candidate in enumerate(known))]
    best = float(made.hypervolumes(_front(problem, everything))[-1])
    return Simulation("recorded", problem, truth, anchors, best)


def _front(problem: Problem, trials: Sequence[Any]) -> list[Any]:
    """Return the anchors, which fix the box, and the best of the rest."""
    losses = problem.losses(trials)
    best = nondominated(losses)
    return [t for t, b in zip(trials, best, strict=True) if b or t.origin.startswith("anchor")]


def _is_known(row: Mapping[str, Any]) -> bool:
    if not isinstance(row["plan"], str):
        return False
    return isinstance(row["failure"], str) or not any(np.isnan(row[name]) for name in MEASURED)


def _preview(
    rows: Mapping[Candidate, Mapping[str, Any]], features: Sequence[str]
) -> Callable[[Sequence[Candidate]], Preview]:
    exact_row = {c: np.array([float(row[m]) for m in EXACT]) for c, row in rows.items()}
    feature_row = {c: np.array([float(row[f]) for f in features]) for c, row in rows.items()}

    def plan(candidate: Candidate) -> str:
        row = rows.get(candidate)
        return str(row["plan"]) if row is not None and _is_known(row) else ""

    def refusal(candidate: Candidate) -> str:
        row = rows.get(candidate)
        if row is None:
            return "not in the table"
        return "" if _is_known(row) else str(row["refusal"])

    def preview(candidates: Sequence[Candidate]) -> Preview:
        plans = tuple(plan(candidate) for candidate in candidates)
        none = np.full(len(EXACT), np.nan), np.full(len(features), np.nan)
        exact = [exact_row[c] if p else none[0] for c, p in zip(candidates, plans, strict=True)]
        seen = [feature_row[c] if p else none[1] for c, p in zip(candidates, plans, strict=True)]
        known = np.array(seen).reshape(len(candidates), len(features))
        return Preview(
            exact=np.array(exact).reshape(len(candidates), len(EXACT)),
            features=known,
            guesses=damage_of(known) if len(features) > DAMAGE else None,
            plans=plans,
            refusals=tuple(refusal(candidate) for candidate in candidates),
            shared=tuple(_shared(rows[c]) if p else "" for c, p in zip(candidates, plans, strict=True)),
        )

    return preview


def _stages(row: Mapping[str, Any]) -> tuple[StageTime, ...]:
    """Return the stages of a trial that heals for itself."""
    times = {stage: float(row[f"{stage}_s"]) for stage in STAGES}
    return tuple(StageTime(stage, seconds) for stage, seconds in times.items() if seconds > 0)


def _shared(row: Mapping[str, Any]) -> str:
    return str(row["prefix"]) if isinstance(row["prefix"], str) else ""


def _tiers(row: Mapping[str, Any]) -> dict[str, Note]:
    return {tier: float(row[tier]) for tier in SHOWN if not np.isnan(row[tier])}
