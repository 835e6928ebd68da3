"""A model is examined on what it was told, each trial left out in turn."""

from dataclasses import replace

import numpy as np
import pytest

from hpo.search.bayesian import BayesianSampler
from hpo.search.generate import sobol
from hpo.search.sampler import Modelling
from hpo.search.sobol import SobolSampler
from hpo.trial import Trial, TrialState
from tests.search.problems import Toy, dtlz2


def history(toy: Toy, count: int) -> list[Trial]:
    return [toy.trial(i, c) for i, c in enumerate(sobol(toy.problem.space, count, seed=3))]


def noisy(trial: Trial, metric: str, rng: np.random.Generator) -> Trial:
    """Return the trial with a value of one metric that nothing can tell."""
    told = [
        replace(m, value=float(rng.uniform(0.5, 1.0))) if m.metric == metric else m
        for m in trial.measurements
    ]
    return replace(trial, measurements=tuple(told))


def test_a_smooth_objective_is_foretold_and_noise_is_not() -> None:
    toy, rng = dtlz2(exact=()), np.random.default_rng(0)
    metric = toy.problem.objectives[0].metric
    told = [noisy(trial, metric, rng) for trial in history(toy, 60)]
    found = {skill.metric: skill for skill in BayesianSampler().skills(toy.problem, told, seed=0)}
    assert set(found) == {objective.metric for objective in toy.problem.objectives}
    smooth = found[toy.problem.objectives[3].metric]
    assert smooth.error < 0.3
    assert found[metric].error == pytest.approx(1.0, abs=0.15), "no better than the mean"
    assert all(0.75 <= skill.coverage <= 1.0 for skill in found.values())


def test_exact_objectives_have_no_model_to_examine() -> None:
    toy = dtlz2()
    found = {skill.metric for skill in BayesianSampler().skills(toy.problem, history(toy, 30), seed=0)}
    assert found == {o.metric for o in toy.problem.objectives} - set(toy.problem.exact)


def test_only_trials_inside_the_box_are_judged() -> None:
    toy = dtlz2(exact=())
    told = history(toy, 40)
    frame = toy.problem.frame(told)
    assert frame is not None
    inside = int((frame.normalised(toy.problem.losses(told)) < 1).all(axis=1).sum())
    assert 5 <= inside < 40
    assert {skill.trials for skill in BayesianSampler().skills(toy.problem, told, seed=0)} == {inside}


def test_what_is_said_of_each_trial_stands_beside_what_it_came_to() -> None:
    toy = dtlz2(exact=())
    told = [replace(trial, number=trial.number + 100) for trial in history(toy, 40)]
    for skill in BayesianSampler().skills(toy.problem, told, seed=0):
        assert len(skill.foretold) == skill.trials
        by_number = {trial.number: trial for trial in told}
        for one in skill.foretold:
            assert one.measured == pytest.approx(by_number[one.trial].value(skill.metric))
            assert one.low < one.expected < one.high
        held = np.mean([one.low <= one.measured <= one.high for one in skill.foretold])
        assert held == pytest.approx(skill.coverage)


def test_a_stopped_trial_is_no_truth_to_judge_by() -> None:
    toy = dtlz2(exact=())
    whole = history(toy, 40)
    cut = [replace(t, state=TrialState.STOPPED) if t.number % 4 == 0 and t.number else t for t in whole]
    for skill in BayesianSampler().skills(toy.problem, cut, seed=0):
        assert not {one.trial for one in skill.foretold} & {t.number for t in cut if t.state == "stopped"}


def test_of_too_few_trials_nothing_is_said() -> None:
    toy = dtlz2(exact=())
    assert BayesianSampler().skills(toy.problem, [], seed=0) == []
    assert BayesianSampler().skills(toy.problem, history(toy, 1), seed=0) == []
    assert BayesianSampler().skills(toy.problem, history(toy, 3), seed=0) == []


def test_samplers_without_a_model_are_not_asked() -> None:
    assert isinstance(BayesianSampler(), Modelling)
    assert not isinstance(SobolSampler(), Modelling)
