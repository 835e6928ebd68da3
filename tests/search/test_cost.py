"""How many seconds a trial would take, and how the search trades them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from hpo.search.botorch_import import importing_botorch

with importing_botorch():
    from hpo.search.cost import Cost
    from hpo.search.modelled import propose

from hpo.metric import Source
from hpo.problem import Preview, Problem
from hpo.search.inputs import Inputs
from hpo.search.outcomes import NoModel
from hpo.search.pool import Gate, Pool, fresh, previewed
from hpo.space import Candidate, Choice, Float, SearchSpace
from hpo.trial import Limit, Measurement, Objective, StageTime, Trial
from tests.search.problems import plan_of

SPACE = SearchSpace.of(
    [
        ("x", Float(low=0.0, high=1.0, step=0.1)),
        ("bits", Choice(choices=(2, 3, 4, 8))),
        ("dear", Choice(choices=(False, True))),
    ]
)
OBJECTIVES = (
    Objective(metric="perplexity", limit=Limit(value=10.0)),
    Objective(metric="prefill_latency", limit=Limit(value=10.0)),
)


def _healing(candidate: Candidate) -> str:
    return f"healed {candidate.values['x']:.1f} {candidate.values['dear']}"


def _preview(candidates: Sequence[Candidate]) -> Preview:
    count = len(candidates)
    plans = tuple(plan_of(c.items) for c in candidates)
    shared = tuple(_healing(c) for c in candidates)
    return Preview(np.empty((count, 0)), np.empty((count, 0)), plans, ("",) * count, shared)


PROBLEM = Problem(SPACE, OBJECTIVES, (), _preview, spends="seconds")


def _history(candidates: Sequence[Candidate]) -> list[Trial]:
    """Return their trials: 1 s to measure and, the first time, 9 s to heal, 90 s where that is dear."""
    done: set[str] = set()
    found = []
    for number, candidate in enumerate(candidates):
        x, bits = float(candidate.values["x"]), int(candidate.values["bits"])
        dear = bool(candidate.values["dear"])
        heal = 0.0 if _healing(candidate) in done else 90.0 if dear else 9.0
        done.add(_healing(candidate))
        measured = (
            Measurement("perplexity", 2 + x + 1 / bits, "ppl", Source.MEASURED),
            Measurement("prefill_latency", 4 - x + bits / 8, "ms", Source.MEASURED),
        )
        trial = Trial(number, candidate, "test", plan_of(candidate.items)).started("worker", 0.0)
        trial = replace(trial, stages=(StageTime("heal", heal), StageTime("measure", 1.0)))
        found.append(replace(trial, measurements=measured).completed(1.0))
    return found


def _drawn(count: int) -> list[Candidate]:
    return list(fresh(Gate.of(PROBLEM, ()), count, seed=3).first(count).candidates)


def _cost(history: Sequence[Trial]) -> Cost:
    return Cost.of(PROBLEM, history, Inputs.of(SPACE, previewed(PROBLEM, history)[1]))


def test_seconds_are_learnt_and_shared_work_is_not_paid_twice() -> None:
    history = _history(_drawn(24))
    cost = _cost(history)
    tried = {trial.candidate for trial in history}
    asked = [c for c in _drawn(88) if c not in tried]
    pool = Pool.of(PROBLEM, asked)
    seconds = cost.seconds(pool)
    done = {_healing(trial.candidate) for trial in history}
    spared = np.array([_healing(c) in done for c in asked])
    dear = np.array([bool(c.values["dear"]) for c in asked])
    assert spared.any()
    assert (~spared & dear).any()
    assert np.median(seconds[spared]) < 3
    assert seconds[~spared & dear].min() > 4 * np.median(seconds[spared])
    assert cost.done == done


def test_too_few_trials_and_equal_times_say_nothing_of_seconds() -> None:
    history = _history(_drawn(7))
    with pytest.raises(NoModel, match="7 trials have been timed, 8 are needed"):
        _cost(history)
    same = [replace(t, stages=(StageTime("measure", 1.0),)) for t in _history(_drawn(12))]
    with pytest.raises(NoModel, match="the same time"):
        _cost(same)


def test_of_two_that_promise_alike_the_cheap_one_is_proposed() -> None:
    history = _history(_drawn(30))
    done = {_healing(trial.candidate) for trial in history}
    left = [c for c in _drawn(88) if _healing(c) not in done]
    assert left
    asked = [propose(PROBLEM, history, [], 1, seed)[0] for seed in range(6)]
    assert all(_healing(c) in done for c in asked)


def test_where_the_budget_is_in_trials_their_seconds_are_nothing_to_the_choice() -> None:
    by_trials = replace(PROBLEM, spends="trials")
    history = _history(_drawn(20))
    others = [replace(t, stages=(StageTime("measure", 1.0 + t.number),)) for t in history]
    assert propose(by_trials, history, [], 2, seed=1) == propose(by_trials, others, [], 2, seed=1)
