"""The value of a candidate: by hand, and against BoTorch."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hpo.search.acquisition import best_improvements, hypervolume_improvement, scalar_improvement, shortfall

Array = NDArray[np.float64]
FRONT = np.array([[[0.2, 0.6], [0.6, 0.2]]])
"""One sample of two trials; the box ends at (1, 1)."""


def improvement(*points: tuple[float, float]) -> list[float]:
    found: list[float] = hypervolume_improvement(FRONT, np.array([points])).tolist()
    return found


def test_a_point_adds_what_it_dominates_alone() -> None:
    # (0.4, 0.4) reaches the step between the two: 0.2 x 0.2. (0.1, 0.9): 0.1 x 0.1 left of the first.
    # (0.2, 0.2) dominates both: 0.8 x 0.8 less the 0.48 there are (0.8 x 0.4 + 0.4 x 0.8 - 0.4 x 0.4).
    assert improvement((0.4, 0.4), (0.1, 0.9), (0.2, 0.2)) == pytest.approx([0.04, 0.01, 0.16])


def test_a_point_behind_the_front_on_it_or_outside_the_box_adds_nothing() -> None:
    assert improvement((0.7, 0.7), (0.2, 0.6), (0.1, 1.0), (0.0, 1.5)) == [0, 0, 0, 0]


def test_samples_are_averaged_and_a_baseline_outside_the_box_is_none() -> None:
    baseline = np.array([[[0.5, 0.5]], [[2.0, 0.0]]])
    points = np.array([[[0.4, 0.5]], [[0.4, 0.5]]])
    # 0.1 x 0.5 beside the front, and 0.6 x 0.5 in an empty box
    assert hypervolume_improvement(baseline, points) == pytest.approx([(0.05 + 0.30) / 2])


def test_the_best_are_judged_by_all_samples_and_no_other_passes_them() -> None:
    rng = np.random.default_rng(0)
    centres = rng.uniform(0.1, 0.9, (200, 3))
    points = centres + rng.normal(0, 0.05, (32, 200, 3))
    baseline, worth = rng.uniform(0.4, 1.0, (32, 12, 3)), rng.uniform(0.5, 2.0, 200)
    whole = hypervolume_improvement(baseline, points) * worth
    found = best_improvements(baseline, points, worth)
    order = np.argsort(-whole)
    assert found[order[:20]] == pytest.approx(whole[order[:20]])
    assert set(np.argsort(-found)[:20]) == set(order[:20])
    spared = ~np.isclose(found, whole)
    assert 50 < spared.sum() < 180
    assert found[spared].max() <= found[order[:64]].min()


def test_few_points_are_all_judged_by_all_samples() -> None:
    rng = np.random.default_rng(1)
    points, baseline = rng.random((32, 60, 2)), rng.uniform(0.5, 1, (32, 3, 2))
    worth = np.full(60, 3.0)
    whole = hypervolume_improvement(baseline, points) * 3
    assert best_improvements(baseline, points, worth) == pytest.approx(whole)


def test_shortfall_is_the_least_by_which_all_losses_must_shrink() -> None:
    points = np.array([[[0.7, 0.8], [0.65, 0.25], [0.1, 1.3], [0.4, 0.4]]])
    # behind (0.6, 0.2) by (0.1, 0.6) and behind (0.2, 0.6) by (0.5, 0.2); then by 0.05; out by 0.3; useful
    assert shortfall(FRONT, points) == pytest.approx([0.2, 0.05, 0.3, 0.0])


def test_a_scalarisation_improves_on_the_best_and_only_inside_the_box() -> None:
    weights = np.array([0.5, 0.5])
    points = np.array([[[0.4, 0.4], [0.7, 0.7], [0.0, 1.0]]])
    # the best so far is 0.5 x 0.6 + 0.05 x 0.4 = 0.32; (0.4, 0.4) scores 0.2 + 0.05 x 0.4 = 0.22
    assert scalar_improvement(FRONT, points, weights) == pytest.approx([0.10, 0.0, 0.0])


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(0, 6))
@settings(max_examples=40, deadline=None)
def test_improvement_and_shortfall_agree_on_who_is_useful(seed: int, objectives: int, trials: int) -> None:
    rng = np.random.default_rng(seed)
    baseline, points = rng.uniform(0, 1.3, (1, trials, objectives)), rng.uniform(0, 1.3, (1, 9, objectives))
    useful = hypervolume_improvement(baseline, points) > 0
    assert (useful == (shortfall(baseline, points) == 0)).all()


def test_it_is_botorch_s_noisy_expected_hypervolume_improvement() -> None:
    """The same processes, sampled by BoTorch and by us, give the same value of every candidate."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", DeprecationWarning)
        import torch
        from botorch.acquisition.multi_objective import monte_carlo
        from botorch.acquisition.multi_objective.objective import WeightedMCMultiOutputObjective
        from botorch.models import ModelListGP
        from botorch.sampling.normal import IIDNormalSampler

        from hpo.search.process import Lesson, fit, joint_samples, reproducible

    rng = np.random.default_rng(0)
    known, asked = rng.random((12, 2)), rng.random((20, 2))
    outcomes = np.column_stack([np.sin(3 * known).sum(axis=1), ((known - 0.6) ** 2).sum(axis=1)])
    outcomes = (outcomes - outcomes.mean(axis=0)) / outcomes.std(axis=0)
    with reproducible(0):
        models = [fit(Lesson.of(known, column)) for column in outcomes.T]
        both = np.vstack([known, asked])
        draws = np.stack([joint_samples(model, both, 1024, rng) for model in models], axis=2) / 2
        ours = hypervolume_improvement(draws[:, :12], draws[:, 12:])
        with warnings.catch_warnings():
            # It recommends its logarithm, which takes seconds to compile on first use.
            warnings.simplefilter("ignore")
            theirs = monte_carlo.qNoisyExpectedHypervolumeImprovement(
                ModelListGP(*models),
                ref_point=[-2.0, -2.0],
                X_baseline=torch.from_numpy(known),
                sampler=IIDNormalSampler(torch.Size([1024]), seed=1),
                objective=WeightedMCMultiOutputObjective(torch.tensor([-1.0, -1.0])),
            )
        with torch.no_grad():
            values = theirs(torch.from_numpy(asked)[:, None]).numpy()
    # ours: losses halved, box to 1; theirs: to 2; so areas differ by 2 x 2
    assert 4 * ours == pytest.approx(values, rel=0.1, abs=0.01 * values.max())
