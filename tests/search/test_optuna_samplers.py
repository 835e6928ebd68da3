"""Our history as Optuna sees it, and Optuna's proposals as we see them."""

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as State

from hpo.pareto import Frame
from hpo.problem import Problem
from hpo.search.botorch_import import importing_botorch
from hpo.search.flat import Flat
from hpo.search.generate import sobol
from hpo.search.optuna_replay import Replay, tpe
from hpo.search.optuna_samplers import OptunaGpSampler, TpeSampler
from hpo.search.sobol import SobolSampler
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
    with Replay(problem, history, pending, tpe(0)) as replay:
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
    with Replay(toy().problem, history, [], tpe(0)) as replay:
        proposals = [replay.propose() for _ in range(40)]
    assert all(SPACE.contains(proposal) for proposal in proposals)
    assert {proposal.values["bits"] for proposal in proposals} == {8, "8", "none"}
    assert {proposal.values["size"] for proposal in proposals} <= {1, 5, 9}
    assert {proposal.values["keep"] for proposal in proposals} <= {0.1, 0.3, 0.5, 0.7}


def test_optuna_s_log_is_quiet_inside_and_as_it_was_outside() -> None:
    before = optuna.logging.get_verbosity()
    replay = Replay(toy().problem, [], [], tpe(0))
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


def test_a_flat_candidate_has_the_middle_of_what_it_does_not_set() -> None:
    flat = Flat(SPACE)
    filled = flat.filled(candidate(0.3))
    assert filled.values == {"keep": 0.3, "size": 5, "rate": 1e-3, "bits": "8", "tilt": 0.5}
    assert flat.problem(toy().problem).space.contains(filled)
    assert flat.filled(filled) == filled


def test_a_row_holds_units_and_places_by_name() -> None:
    """Columns bits, keep, rate, size, tilt: second choice; second of four steps; 2/3 of the log range."""
    rows = Flat(SPACE).rows([candidate(0.3)])
    assert rows[0] == pytest.approx([1, 1.5 / 4, 2 / 3, 0.5, 0.5])


def the_gp() -> ModuleType:
    """Return the module behind the GP sampler."""
    with importing_botorch():
        return import_module("hpo.search.optuna_gp")


def test_rows_are_what_optuna_s_processes_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """The acquisition is asked with our rows, so they must be Optuna's; its private hook must be called."""
    optuna_gp = the_gp()
    wide = SearchSpace.of(
        [*SPACE.parameters.items(), ("odd", Int(low=1, high=90, log=True)), ("one", Int(low=3, high=3))]
    )
    problem = replace(toy().problem, space=wide)
    flat = Flat(wide)
    seen: list[Any] = []
    inner = optuna_gp._PoolGp._optimize_acqf

    def watched(self: Any, acqf: Any, best: Any) -> Any:
        seen.append(acqf)
        return inner(self, acqf, best)

    monkeypatch.setattr(optuna_gp._PoolGp, "_optimize_acqf", watched)
    candidates = sobol(wide, 9, seed=0)
    history = [replace(toy().trial(i, candidate(0.3)), candidate=c) for i, c in enumerate(candidates)]
    assert len(OptunaGpSampler(initial=2).ask(problem, history, 1, seed=0)) == 1
    with Replay(flat.problem(problem), flat.history(history), [], tpe(0)) as replay:
        trials = replay.study.get_trials()
    assert seen[0].search_space.get_normalized_params(trials) == pytest.approx(flat.rows(candidates))


def forked() -> Toy:
    """Two branches with a number each: 1 + (a - 0.7)^2 on the left, 2 + (b - 0.2)^2 on the right."""
    space = SearchSpace.of(
        [
            ("way", Choice(choices=("left", "right"))),
            ("way.a", Float(low=0.0, high=1.0, when={"way": ("left",)})),
            ("way.b", Float(low=0.0, high=1.0, when={"way": ("right",)})),
        ]
    )

    def truth(c: Candidate) -> dict[str, float]:
        if c.values["way"] == "left":
            return {"perplexity": 1 + (float(c.values["way.a"]) - 0.7) ** 2}
        return {"perplexity": 2 + (float(c.values["way.b"]) - 0.2) ** 2}

    return plain(space, [Objective(metric="perplexity")], (), truth)


def misses(asked: Sequence[Candidate]) -> list[float]:
    """Return how far candidates of the good branch are from its best point."""
    return [abs(float(c.values["way.a"]) - 0.7) for c in asked if c.values["way"] == "left"]


def test_gp_s_proposals_below_a_branch_are_no_draws() -> None:
    """After 30 quasi-random trials, one each for eight seeds."""
    history = forked().search(SobolSampler(), 30, seed=0)
    learnt = [OptunaGpSampler().ask(forked().problem, history, 1, seed)[0] for seed in range(8)]
    blind = [SobolSampler().ask(forked().problem, history, 2, seed)[0] for seed in range(8)]
    assert len(misses(learnt)) >= 6, "the good branch is known"
    assert np.median(misses(learnt)) < 0.05
    assert max(misses(learnt)) < np.median(misses(blind))


def test_gp_leaves_room_around_what_is_under_way() -> None:
    history = forked().search(SobolSampler(), 16, seed=0)
    asked = OptunaGpSampler().ask(forked().problem, history, 4, seed=0)
    assert len(set(asked)) == 4
    places = sorted(c.items for c in asked)
    near = [abs(float(one[-1][1]) - float(two[-1][1])) for one, two in pairwise(places) if one[0] == two[0]]
    assert min(near, default=1.0) > 1e-3


def test_gp_learns_where_trials_fail() -> None:
    """All with a above 0.5 ran out of memory, although the best of the branch, 0.7, lies there."""
    problem = forked()
    history = [
        trial.started("again", 0.0).failed(Cause.OUT_OF_MEMORY, "", 1.0)
        if float(trial.candidate.values.get("way.a", 0.0)) > 0.5
        else problem.trial(trial.number, trial.candidate)
        for trial in (
            problem.trial(i, c, state=TrialState.WAITING)
            for i, c in enumerate(sobol(problem.problem.space, 30, seed=1))
        )
    ]
    asked = OptunaGpSampler().ask(problem.problem, history, 4, seed=0)
    assert max(float(c.values.get("way.a", 0.0)) for c in asked) < 0.6


def test_gp_learns_one_number_of_four_objectives_that_keeps_who_dominates_whom() -> None:
    """Row 0 is best in all, row 3 worst; row 2 was stopped and has no value."""
    losses = np.array([[1.0, 1, 1, 1], [2.0, 1, 3, 1], [-1.0, np.nan, 1, 1], [2.0, 4, 3, 5]])
    told = the_gp().told(losses, Frame((0.0,) * 4, (9.0,) * 4), np.full(4, 0.25))
    assert told.shape == (4, 1)
    assert told[0, 0] < told[1, 0] < told[3, 0]
    assert np.isnan(told[2]).all()


def test_gp_learns_each_of_three_objectives_in_its_order() -> None:
    losses = np.array([[1.0, 50, 3], [1e6, 20, 2], [2.0, 30, 1]])
    told = the_gp().told(losses, Frame((0.0,) * 3, (9.0, 99.0, 9.0)), np.full(3, 1 / 3))
    assert np.argsort(told, axis=0).tolist() == np.argsort(losses, axis=0).tolist()
    assert abs(told).max() < 2, "a broken model's perplexity leaves the others apart"
    assert told[2, 0] - told[0, 0] > 0.1
