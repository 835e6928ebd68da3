"""Our search with one thing off: that it is off, that nothing else is, and that all is back afterwards."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks.search.ablation import (
    ALTERATIONS,
    Alteration,
    plain_scale,
    with_nothing_exact,
    without_features,
)
from benchmarks.search.recorded import recorded
from benchmarks.search.searcher import make, names, version_of
from hpo.problem import Problem
from hpo.search.botorch_import import importing_botorch
from hpo.search.outcomes import Scale, box
from hpo.search.pool import previewed
from hpo.search.start import opening
from hpo.space import Candidate
from hpo.trial import Trial

with importing_botorch():
    from hpo.search import modelled
    from hpo.search.inputs import Inputs
    from hpo.search.surrogate import Surrogate

INITIAL = 3
OFF = {
    "bayesian": set[str](),
    "bayesian/no_features": {"features"},
    "bayesian/exact_modelled": {"exact"},
    "bayesian/no_promising_start": {"guesses"},
    "bayesian/plain_outcomes": {"scale"},
    "bayesian/no_local_search": {"rounds"},
    "bayesian/start_16": {"start"},
}
"""What each searcher sees or does otherwise than the whole one."""


def _seen(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what a search has before it when it first has a model."""
    simulation, found = recorded(), dict[str, Any]()

    def opened(problem: Problem, *rest: Any) -> list[Candidate]:
        preview = problem.preview([Candidate()])
        found["guesses"] = preview.guesses is not None
        return opening(problem, *rest)

    def proposed(
        problem: Problem, history: Sequence[Trial], start: Sequence[Candidate], count: int, seed: int
    ) -> list[Candidate]:
        preview = problem.preview([Candidate()])
        found["features"] = preview.features.shape[1]
        found["exact"] = problem.exact, preview.exact.shape[1]
        found["rounds"] = modelled._ROUNDS
        found["scale"] = Scale.of(np.array([1.0, 10.0, 1000.0]), 20.0)
        found["start"] = len(history) - len(simulation.anchors)
        return [simulation.anchors[0][1]]

    with monkeypatch.context() as patch:
        patch.setattr("hpo.search.bayesian.opening", opened)
        patch.setattr(modelled, "propose", proposed)
        search = make(name, simulation.problem, seed=0, initial=INITIAL)
        history = simulation.start()
        for trial in history:
            search.tell(trial)
        while "start" not in found:
            history.append(simulation.trial(len(history), search.ask(), name))
            search.tell(history[-1])
    return found


@pytest.mark.parametrize("name", OFF)
def test_one_thing_is_off_and_everything_else_is_as_it_was(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, found = _seen("bayesian", monkeypatch), _seen(name, monkeypatch)
    assert {key for key in whole if whole[key] != found[key]} == OFF[name]


def test_what_is_off_is_off_for_a_search_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = modelled.propose, modelled._ROUNDS, Scale.of
    for alteration in ALTERATIONS.values():
        with pytest.raises(RuntimeError, match="broke down"), alteration.applied():
            raise RuntimeError("broke down")
    assert (modelled.propose, modelled._ROUNDS, Scale.of) == before


def test_the_start_is_longer_by_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _seen("bayesian", monkeypatch)["start"] == INITIAL
    assert _seen("bayesian/start_16", monkeypatch)["start"] == 2 * INITIAL


def test_without_features_the_rows_of_the_model_are_narrower_by_those_that_vary() -> None:
    simulation = recorded()
    history = simulation.start()
    whole, less = (
        Inputs.of(problem.space, previewed(problem, history)[1])
        for problem in (simulation.problem, without_features(simulation.problem))
    )
    known = previewed(simulation.problem, history)[1]
    varying = int((np.ptp(known.features, axis=0) > 1e-12).sum())
    assert varying > 3
    assert len(less.kept) == len(whole.kept) - varying


def test_with_nothing_exact_every_objective_is_learnt() -> None:
    simulation = recorded()
    history = simulation.start()
    for problem, learnt in (
        (simulation.problem, {0, 1}),
        (with_nothing_exact(simulation.problem), {0, 1, 2, 3}),
    ):
        surrogate = Surrogate.of(problem, history, box(problem, history))
        assert set(surrogate.learnt) == learnt
        pool = previewed(problem, history)[1]
        assert surrogate.losses(pool, 2, np.random.default_rng(0)).shape == (2, len(pool), 4)


def test_plain_outcomes_have_mean_0_and_spread_1_and_come_back_as_they_were() -> None:
    losses = np.array([1.0, 3.0, 5.0, 1e6])
    scale = plain_scale(losses, 4.0, 2.0)
    outcomes = scale.forward(losses)
    assert outcomes == pytest.approx((losses - losses.mean()) / losses.std())
    assert scale.backward(outcomes) == pytest.approx(losses)
    assert plain_scale(np.array([2.0]), 4.0).forward(np.array([2.0, 3.0])).tolist() == [0.0, 1.0]


def test_an_alteration_of_two_things_or_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="alters 2 things"):
        Alteration("two", rounds=0, start=2)
    with pytest.raises(ValueError, match="alters 0 things"):
        Alteration("none")


def test_searchers_with_something_off_have_names_and_a_version_of_their_own() -> None:
    assert set(OFF) - {"bayesian"} == set(ALTERATIONS) <= set(names())
    assert version_of("bayesian/no_features") != version_of("bayesian")
