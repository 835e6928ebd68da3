"""The processes behind the search: what they are told, and what they say."""

import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    # linear_operator decorates two functions with what torch 2.13 calls deprecated.
    warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", DeprecationWarning)
    import torch

    from hpo.search.process import Lesson, fit, joint_samples, reproducible
    from hpo.search.surrogate import Surrogate

from hpo.search.generate import sobol
from hpo.search.outcomes import NoModel, box
from hpo.search.pool import Pool
from hpo.trial import Cause, TrialState
from tests.search.problems import Toy, dtlz2


def learnt(toy: Toy, trials: int) -> tuple[Surrogate, Pool]:
    history = toy.start()
    for candidate in sobol(toy.problem.space, trials, seed=4):
        if toy.problem.preview([candidate]).plans[0]:
            history.append(toy.trial(len(history), candidate))
    asked = Pool.of(toy.problem, sobol(toy.problem.space, 50, seed=8))
    with reproducible(0):
        return Surrogate.of(toy.problem, history, box(toy.problem, history)), asked


def test_exact_losses_are_given_and_the_others_learnt() -> None:
    toy = dtlz2()
    surrogate, asked = learnt(toy, 60)
    samples = surrogate.losses(asked, 64, np.random.default_rng(0))
    truth = toy.problem.losses([toy.trial(0, candidate) for candidate in asked.candidates])
    assert samples.shape == (64, 50, 4)
    assert set(surrogate.learnt) == {0, 1}
    assert (samples[:, :, 2:] == truth[:, 2:]).all()
    error = samples.mean(axis=0)[:, :2] - truth[:, :2]
    assert np.sqrt((error**2).mean()) < 0.25 * truth[:, :2].std()


def test_samples_are_joint_draws_of_the_process() -> None:
    inputs = np.linspace(0, 1, 8)[:, None]
    with reproducible(0):
        model = fit(Lesson.of(inputs, np.sin(6 * inputs[:, 0])))
        twins = np.array([[0.33], [0.33], [0.9]])
        draws = joint_samples(model, twins, 2000, np.random.default_rng(0))
    with torch.no_grad():
        found = model.posterior(torch.from_numpy(twins)).distribution
    assert draws[:, 0] == pytest.approx(draws[:, 1], abs=0.01)  # one point, drawn twice at once
    assert draws.mean(axis=0) == pytest.approx(found.mean.numpy(), abs=0.02)
    assert draws.std(axis=0) == pytest.approx(found.variance.sqrt().numpy(), rel=0.1, abs=1e-3)


def test_failures_lower_the_chance_of_success_where_they_are() -> None:
    toy = dtlz2()  # of whose six parameters one decides
    history = []
    for i, candidate in enumerate(sobol(toy.problem.space, 60, seed=4)):
        trial = toy.trial(i, candidate, state=TrialState.RUNNING)
        fails = float(candidate.values["x4"]) > 0.7
        history.append(trial.failed(Cause.ERROR, "", 1.0) if fails else toy.trial(i, candidate))
    asked = Pool.of(toy.problem, sobol(toy.problem.space, 100, seed=8))
    with reproducible(0):
        surrogate = Surrogate.of(toy.problem, history, box(toy.problem, history))
    chances = surrogate.chances(asked)
    x = np.array([float(candidate.values["x4"]) for candidate in asked.candidates])
    assert ((chances >= 0) & (chances <= 1)).all()
    assert chances[x > 0.8].max() < 0.3
    assert chances[x < 0.6].min() > 0.7


def test_without_failures_success_is_certain() -> None:
    surrogate, asked = learnt(dtlz2(), 12)
    assert (surrogate.chances(asked) == 1).all()


def test_two_trials_of_one_candidate_are_too_few() -> None:
    with pytest.raises(NoModel, match="2 distinct"):
        fit(Lesson.of(np.ones((3, 2)), np.array([-1.0, 0.0, 1.0])))
    with pytest.raises(NoModel, match="2 distinct"):
        fit(Lesson.of(np.empty((3, 0)), np.array([-1.0, 0.0, 1.0])))


def test_torch_is_left_as_it_was_even_after_an_error() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with reproducible(3):
        assert torch.get_num_threads() == 1
        drawn = torch.rand(5)
    with reproducible(3):
        assert (torch.rand(5) == drawn).all()
    with pytest.raises(ZeroDivisionError), reproducible(3):
        _ = 1 / 0
    assert torch.get_num_threads() == threads
    assert (torch.get_rng_state() == state).all()
