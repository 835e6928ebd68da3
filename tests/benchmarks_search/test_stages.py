"""Shared work, figures that are shown early, and trials that are stopped on them."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.search import race as race_module
from benchmarks.search.race import race
from benchmarks.search.recorded import recorded
from benchmarks.search.recorded import simulation as recorded_simulation
from benchmarks.search.simulation import Answer, Simulation
from hpo.search.generate import everything
from hpo.space import Candidate
from hpo.study import Study
from hpo.trial import Cause, StageTime, Trial, TrialState
from tests.benchmarks_search.test_race import Script, _thin
from tests.benchmarks_search.toys import conditional


def staged() -> Simulation:
    """Return the conditional toy with a screen, a long healing that is shared by all, and a rounding."""
    plain = conditional()

    def truth(candidate: Candidate) -> Answer:
        stages = tuple(
            StageTime(name, seconds)
            for name, seconds in (("screen", 1.0), ("heal", 10.0), ("heal_on", 20.0), ("measure", 5.0))
        )
        shown = {"kl": "screen", "short": "heal", "after": "heal_on"}
        notes = {"kl": 0.1, "short": 0.2, "after": 0.3}
        return Answer(
            plain.truth(candidate).values, stages, notes, shown, shared="a", spared=("heal", "heal_on")
        )

    return replace(plain, truth=truth)


def test_a_running_trial_shows_what_its_stages_have_brought() -> None:
    seen = [(t.state, t.notes, t.seconds) for t in staged().glimpses(1, _thin(0.5), "someone")]
    assert seen == [
        (TrialState.RUNNING, {"kl": 0.1}, 1.0),
        (TrialState.RUNNING, {"kl": 0.1, "short": 0.2}, 11.0),
        (TrialState.RUNNING, {"kl": 0.1, "short": 0.2, "after": 0.3}, 31.0),
    ]


def test_whoever_shares_work_that_is_done_is_spared_its_seconds() -> None:
    assert staged().trial(1, _thin(0.5), "someone").seconds == 36.0
    assert staged().trial(1, _thin(0.5), "someone", done={"b"}).seconds == 36.0
    assert staged().trial(1, _thin(0.5), "someone", done={"a"}).seconds == 6.0
    (glimpse,) = staged().glimpses(1, _thin(0.5), "someone", done={"a"})
    assert glimpse.seconds == 1.0


class Strict:
    """Stops whatever is larger than it likes, after the short healing if there is one."""

    def verdict(self, history: list[Trial], trial: Trial) -> str:
        is_large = float(trial.candidate.values["kind.keep"]) > 0.6
        return "too large" if is_large and "short" in trial.notes else ""


def test_a_race_stops_trials_and_counts_which_of_them_the_front_would_have_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script([_thin(0.9), _thin(0.3), _thin(0.8)])
    monkeypatch.setattr(race_module, "make", lambda *_: script)
    monkeypatch.setattr(race_module, "_screening", lambda _: Strict())
    run = race(staged(), "random", 3, seed=0, initial=2, stopping=True)
    # The first is stopped after the short healing. The second heals for all, so that nothing of a healing is
    # left to show in the third, which runs to its end.
    assert run.seconds == (11.0, 47.0, 53.0)
    assert (run.stopped, run.lost) == (1, 1)  # larger is better: with 0.9 measured it had been on the front
    assert run.hypervolumes[0] == run.anchors


STUDY = Study.from_mapping(
    {
        "version": 1,
        "name": "table",
        "model": "reference",
        "data": {"calibration": {"reference": True}, "evaluation": {"reference": True}},
        "objectives": [
            {"metric": "perplexity", "limit": {"ratio_to_dense": 3.0}},
            "prefill_latency_ratio",
            "weight_memory",
            {"metric": "energy", "allow_modelled": True},
        ],
        "space": {"quantize": {"type": "choice", "choices": ["rtn", "gptq", "int8"]}},
        "budget": {"trials": 5},
    }
)


def _row(
    origin: str, values: dict[str, str], plan: str, perplexity: float | None, size: float
) -> dict[str, object]:
    seconds = {f"{stage}_s": 1.0 for stage in ("compress", "screen", "heal", "round", "measure", "time")}
    return {
        "origin": origin,
        "values": json.dumps(values),
        "plan": plan,
        "refusal": "" if plan else "no kernel",
        "feature_0": size / 100,
        "weight_memory": size,
        "energy": size / 10,
        "perplexity": perplexity,
        "prefill_latency_ratio": 1.0,
        "prefill_latency_ratio_spread": 0.01,
        "screen_kl": 0.1,
        "heal_nll_short": np.nan,
        "heal_nll_after": 1.5,
        "failure": None,
        "prefix": "shared" if values else None,
        **seconds,
        "heal_on_s": 0.0,
    }


def table() -> pd.DataFrame:
    rows = [
        _row("anchor:dense", {}, "dense", 5.0, 100.0),
        _row("space", {"quantize": "rtn"}, "one", 6.0, 40.0),
        _row("space", {"quantize": "gptq"}, "two", None, 30.0) | {"failure": "not_a_number"},
        _row("space", {"quantize": "int8"}, "", None, 50.0),
    ]
    return pd.DataFrame(rows).replace({"": np.nan})


def test_a_table_is_a_problem_whose_truth_is_what_was_recorded() -> None:
    made = recorded_simulation(STUDY, table())
    rtn, gptq, int8 = (Candidate.of({"quantize": name}) for name in ("rtn", "gptq", "int8"))
    preview = made.problem.preview([rtn, int8, Candidate.of({"quantize": "other"})])
    assert preview.plans == ("one", "", "")
    assert preview.refusals == ("", "no kernel", "not in the table")
    assert preview.exact[0].tolist() == [40.0, 4.0]
    assert preview.features[0].tolist() == [0.4]
    trial = made.trial(1, rtn, "someone")
    assert (trial.value("perplexity"), trial.value("weight_memory")) == (6.0, 40.0)
    assert trial.notes == {"screen_kl": 0.1, "heal_nll_after": 1.5}
    assert trial.seconds == 6.0
    assert made.trial(1, rtn, "someone", done={"shared"}).seconds == 5.0
    assert made.trial(2, gptq, "someone").cause is Cause.NOT_A_NUMBER


def test_all_that_was_recorded_comes_to_a_hypervolume_of_one() -> None:
    made = recorded_simulation(STUDY, table())
    history = [*made.start(), made.trial(1, Candidate.of({"quantize": "rtn"}), "someone")]
    assert made.hypervolumes(history)[-1] == pytest.approx(1.0)
    assert made.hypervolumes(history)[0] < 1.0


def test_the_recorded_table_is_whole_and_its_search_is_not_over_at_the_start() -> None:
    made = recorded()
    candidates = list(everything(made.problem.space))
    preview = made.problem.preview(candidates)
    plans = [plan for plan in preview.plans if plan]
    assert len(candidates) == 3024
    assert len(set(plans)) >= 2000
    assert all(bool(plan) != bool(why) for plan, why in zip(preview.plans, preview.refusals, strict=True))
    assert np.isfinite(preview.exact[[bool(plan) for plan in preview.plans]]).all()
    anchors = [origin.partition(":")[2] for origin, _ in made.anchors]
    assert anchors == ["dense", "int8", "int4", "svd", "smallest", "largest"]
    assert 0.1 < made.hypervolumes(made.start())[-1] < 0.5
    planned = (c for c, plan in zip(candidates, preview.plans, strict=True) if plan)
    healed = made.truth(
        next(c for c in planned if "distil" in c.values.values() and "modegpt" in c.values.values())
    )
    assert healed.shared
    assert {"screen_kl", "heal_nll_after"} <= set(healed.notes)
