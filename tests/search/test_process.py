"""Gaussian processes: what they are told counts as much as it is sure."""

import numpy as np
import pytest

from hpo.search.botorch_import import importing_botorch
from hpo.search.outcomes import NoModel

with importing_botorch():
    from hpo.search.process import Lesson, fit, left_out, means, reproducible

ROWS = np.linspace(0, 1, 12)[:, None]
WAVE = np.sin(6 * ROWS[:, 0])


def test_what_is_known_to_be_noisy_counts_less() -> None:
    rows = np.vstack([ROWS, [[0.5]], [[0.5]]])
    outcomes = np.concatenate([WAVE, [np.sin(3.0)], [np.sin(3.0) + 2.0]])
    variances = np.concatenate([np.zeros(13), [4.0]])
    source = Lesson.of(ROWS, WAVE)  # the same parameters for both
    with reproducible(0):
        told = means(fit(Lesson(rows, outcomes, variances), source), np.array([[0.5]]))
        deceived = means(fit(Lesson.of(rows, outcomes), source), np.array([[0.5]]))
    assert told == pytest.approx([np.sin(3.0)], abs=0.1)
    assert deceived > told + 0.5


def test_a_process_may_be_told_more_than_its_parameters_are_fitted_to() -> None:
    source = Lesson.of(ROWS[::2], WAVE[::2])
    with reproducible(0):
        short, long = fit(source), fit(Lesson.of(ROWS, WAVE), source)
    scales = [model.covar_module.lengthscale.detach().numpy() for model in (short, long)]
    assert (scales[0] == scales[1]).all()
    off = [np.abs(means(model, ROWS) - WAVE).max() for model in (short, long)]
    assert off[1] < off[0]


def test_the_same_lesson_gives_the_same_process_to_the_bit() -> None:
    models = []
    for seed in (0, 7):
        with reproducible(seed):
            models.append(fit(Lesson.of(ROWS, WAVE)))
    assert (means(models[0], ROWS + 0.01) == means(models[1], ROWS + 0.01)).all()


def test_what_is_left_out_is_told_by_the_others() -> None:
    outlier = WAVE.copy()
    outlier[5] += 3
    with reproducible(0):
        lesson = Lesson.of(ROWS, outlier)
        expected, deviations = left_out(fit(lesson, Lesson.of(ROWS, WAVE)), lesson)
    assert expected[5] == pytest.approx(WAVE[5], abs=0.3), "the outlier itself has no say"
    assert (deviations > 0).all()


@pytest.mark.parametrize(
    ("outcomes", "variances"),
    [(np.zeros(2), np.zeros(3)), (np.zeros(3), np.zeros(1)), (np.zeros(3), -np.ones(3))],
)
def test_a_lesson_that_does_not_fit_together_is_refused(outcomes: np.ndarray, variances: np.ndarray) -> None:
    with pytest.raises(ValueError, match="variance"):
        Lesson(np.zeros((3, 1)), outcomes, variances)


def test_a_lesson_of_one_point_makes_no_process() -> None:
    with pytest.raises(NoModel, match="2 distinct"):
        fit(Lesson.of(np.zeros((4, 1)), np.zeros(4)))
