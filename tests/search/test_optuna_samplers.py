"""Our history as Optuna sees it, and Optuna's proposals as we see them."""

from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as State

from hpo.problem import Problem
from hpo.search.generate import sobol
from hpo.search.optuna_replay import Replay
from hpo.search.optuna_samplers import TpeSampler
from hpo.space import Candidate, Choice, Float, Int, SearchSpace
from hpo.trial import Cause, Limit, Objective, Trial, TrialState
from tests.search.problems import Toy, compression, dtlz2, plain

SPACE = SearchSpace.of(
    [
        ("keep", Float(low=0.1, high=0.75, step=0.2)),  # 0.1, 0.3, 0.5, 0.7
        ("size", Int(low=1, high=10, step=4)),  # 1, 5, 9
        ("rate", Float(low=1e-5, high=1e-2, log=True)),
        ("bits", Choice(choices=(8, "8", "none"))),
        ("tilt", Float(low=0.0, high=1.0, when={"bits": ("none",)})),
    ]
)


def toy() -> Toy:
    def truth(candidate: Candidate) -> dict[str, float]:
        keep = float(candidate.values["keep"])
        return {"perplexity": 2 - keep, "weight_memory": 100 * keep}

    limited = [Objective(metric="perplexity", limit=Limit(value=1.6)), Objective(metric="weight_memory")]
    return plain(SPACE, limited, ("weight_memory",), truth)


def replayed(problem: Problem, history: list[Trial], pending: list[Candidate]) -> list[FrozenTrial]:
    with Replay(problem, history, pending, seed=0) as replay:
        trials: list[FrozenTrial] = replay.study.get_trials()
    return trials


def candidate(keep: float) -> Candidate:
    return Candidate.of({"keep": keep, "size": 5, "rate": 1e-3, "bits": "8"})


def test_every_state_has_its_place_in_optuna() -> None:
    done = toy().trial(0, candidate(0.3))
    running = toy().trial(1, candidate(0.5), state=TrialState.RUNNING)
    history = [
        done,
        running,
        replace(running, state=TrialState.FAILED, cause=Cause.NOT_A_NUMBER),
        replace(running, state=TrialState.FAILED, cause=Cause.LOST_WORKER),
        replace(done, state=TrialState.STOPPED, measurements=done.measurements[:1]),
        replace(done, measurements=done.measurements[1:]),
        toy().trial(2, candidate(0.7), state=TrialState.WAITING),
        replace(done, candidate=Candidate(), origin="anchor:dense"),
    ]
    found = replayed(toy().problem, history, [candidate(0.1)])
    assert [trial.state for trial in found] == [
        State.RUNNING,  # chosen a moment ago
        State.COMPLETE,
        State.RUNNING,
        State.PRUNED,  # its own fault: learnt, without a value
        State.PRUNED,  # stopped; the lost worker before it taught nothing
        State.PRUNED,  # completed, but for a missing value
        State.RUNNING,  # waiting is as good as running; the dense model after it is outside the space
    ]
    assert found[1].values == pytest.approx([1.7, 30.0])
    assert found[1].params == {"keep": 0.3, "size": 5, "rate": 1e-3, "bits": 1}


def test_limits_are_constraints_and_a_failure_breaks_them_most() -> None:
    done = toy().trial(0, candidate(0.3))
    lost = replace(done, state=TrialState.FAILED, cause=Cause.OUT_OF_MEMORY, measurements=())
    kept = toy().trial(1, candidate(0.5))
    constraints = [trial.constraints for trial in replayed(toy().problem, [done, kept, lost], [])]
    assert constraints[0] == pytest.approx({"0": (1.7 - 1.6) / 1.6})
    assert constraints[1] == pytest.approx({"0": (1.5 - 1.6) / 1.6})
    assert constraints[2] == {"failed": np.inf}


def test_proposals_lie_in_the_space_and_follow_its_conditions() -> None:
    history = [toy().trial(i, c) for i, c in enumerate(sobol(SPACE, 12, seed=0))]
    with Replay(toy().problem, history, [], seed=0) as replay:
        proposals = [replay.propose() for _ in range(40)]
    assert all(SPACE.contains(proposal) for proposal in proposals)
    assert {proposal.values["bits"] for proposal in proposals} == {8, "8", "none"}
    assert {proposal.values["size"] for proposal in proposals} <= {1, 5, 9}
    assert {proposal.values["keep"] for proposal in proposals} <= {0.1, 0.3, 0.5, 0.7}


def test_optuna_s_log_is_quiet_inside_and_as_it_was_outside() -> None:
    before = optuna.logging.get_verbosity()
    replay = Replay(toy().problem, [], [], seed=0)
    with replay:
        assert optuna.logging.get_verbosity() == optuna.logging.WARNING
    assert optuna.logging.get_verbosity() == before
    with pytest.raises(ZeroDivisionError), replay:
        _ = 1 / 0
    assert optuna.logging.get_verbosity() == before


def test_tpe_comes_back_to_where_trials_are_good() -> None:
    space = SearchSpace.of([("x", Float(low=0.0, high=1.0))])

    def truth(c: Candidate) -> dict[str, float]:
        return {"perplexity": 1 + (float(c.values["x"]) - 0.8) ** 2}

    problem = plain(space, [Objective(metric="perplexity")], (), truth)
    history = problem.search(TpeSampler(), 40, seed=0)
    late = [abs(float(trial.candidate.values["x"]) - 0.8) for trial in history[20:]]
    assert np.median(late) < 0.15


def test_tpe_learns_where_trials_fail() -> None:
    problem = compression()
    history = problem.search(TpeSampler(), 60, seed=0)
    assert sum(trial.state is TrialState.FAILED for trial in history) <= 6


def test_tpe_finds_its_way_below_an_exact_limit_that_most_of_the_space_breaks() -> None:
    problem = dtlz2()
    tight = [replace_limit(objective) for objective in problem.problem.objectives]
    narrow = Toy(replace(problem.problem, objectives=tuple(tight)), problem.truth)
    history = narrow.search(TpeSampler(initial=2), 12, seed=0)
    assert len(history) == 12
    assert (narrow.problem.losses(history)[:, 2:] <= 0.3).all()


def replace_limit(objective: Objective) -> Objective:
    return Objective(metric=objective.metric, limit=Limit(value=0.3 if objective.is_exact else 2.0))
