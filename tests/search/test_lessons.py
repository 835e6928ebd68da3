"""What processes are told: the noise of timings, what stopped trials foretell, and not too many trials."""

from dataclasses import replace

import numpy as np
import pytest

from hpo.metric import Source
from hpo.pareto import Frame
from hpo.search.botorch_import import importing_botorch
from hpo.search.outcomes import Scale, box
from hpo.search.pool import Pool
from hpo.trial import Measurement, TrialState
from tests.search import tiered
from tests.search.problems import Toy, dtlz2

with importing_botorch():
    from hpo.search.lessons import Record, milestone

PLAIN = Scale(log=False, edge=1e9, width=1.0, centre=0.0, spread=2.0)


def record(toy: Toy, losses: np.ndarray) -> Record:
    """Return a record of made-up losses, of which one in two objectives is enough."""
    nothing = np.empty((len(losses), 0))
    names = tuple(str(i) for i in range(len(losses)))
    pool = Pool((), nothing, nothing, names, nothing, names)
    whole, numbers = np.ones(len(losses), dtype=bool), np.arange(len(losses))
    return Record(pool, losses, np.zeros_like(losses), whole, numbers)


def test_parameters_are_fitted_at_every_trial_at_first_and_then_at_each_tenth_more() -> None:
    assert [milestone(n) for n in (0, 1, 7, 19, 20, 21, 22, 23, 24)] == [0, 1, 7, 19, 20, 20, 22, 22, 24]
    # 20 22 24 26 28 30 33 36 39 42 46 50 55 60 66 72 79 86 94 103 113
    assert [milestone(n) for n in (93, 94, 102, 103, 112)] == [86, 94, 94, 103, 103]
    assert all(milestone(n) <= n < 1.1 * milestone(n) + 1 for n in range(1, 3000))


def test_what_was_timed_repeatedly_is_as_noisy_as_the_mean_of_its_repeats() -> None:
    toy = dtlz2()
    trial = toy.start()[0] if toy.start() else toy.trial(0, toy.problem.space.from_unit([0.5] * 6))
    latency = Measurement("prefill_latency", 8.0, "ms", Source.MEASURED, spread=0.6, repeats=9)
    quality = Measurement("perplexity", 5.0, "ppl", Source.MEASURED, spread=0.3, repeats=1)
    others = tuple(m for m in trial.measurements if m.metric not in ("prefill_latency", "perplexity"))
    told = Record.of(toy.problem, [replace(trial, measurements=(latency, quality, *others))], Frame((), ()))
    places = {o.metric: i for i, o in enumerate(toy.problem.objectives)}
    assert told.deviations[0, places["prefill_latency"]] == pytest.approx(0.2)
    assert told.deviations[0, places["perplexity"]] == 0, "texts are the same for all trials"
    lesson = told.lesson(np.array([0]), places["prefill_latency"], np.zeros((1, 2)), PLAIN)
    assert lesson.outcomes == pytest.approx([4.0])
    assert lesson.variances == pytest.approx([0.01])


def test_of_too_many_trials_the_nearest_to_the_front_and_a_spread_of_the_rest_are_kept() -> None:
    front = np.column_stack([np.linspace(0, 1, 5), np.linspace(1, 0, 5)])
    behind = front[[2]] + np.linspace(1, 2, 20)[:, None]
    told = record(dtlz2(), np.vstack([behind[:10], front, behind[10:]]))
    kept = told.chosen(np.arange(25), 10)
    assert len(kept) == len(set(kept)) == 10
    assert set(range(10, 15)) <= set(kept), "the front is kept"
    assert (kept[0], kept[-1]) == (0, 24), "so are the first and the last"
    assert (np.diff(kept) > 0).all()


def test_few_trials_are_all_kept_and_an_unknown_loss_counts_as_the_worst() -> None:
    told = record(dtlz2(), np.array([[0.0, 1.0], [1.0, 0.0], [np.nan, 0.0], [0.5, 0.5]]))
    assert told.chosen(np.arange(4), 4).tolist() == [0, 1, 2, 3]
    assert 2 not in told.chosen(np.arange(4), 3).tolist()[:2]
    assert told.having(0, among=4).tolist() == [0, 1, 3]
    assert told.having(0, among=2).tolist() == [0, 1]


def test_a_stopped_trial_teaches_what_its_tiers_foretell() -> None:
    told = tiered.history(40)
    cut = tiered.running(99, tiered.point(0.6, 0.8))
    stopped = cut.stopped("beaten", 1.0)
    assert stopped.state is TrialState.STOPPED
    found = Record.of(tiered.PROBLEM, [*told, stopped], box(tiered.PROBLEM, told))
    truth = 5 * np.exp(tiered.damage(cut.candidate))
    assert found.losses[-1, 0] == pytest.approx(truth, rel=0.1)
    assert 0 < found.deviations[-1, 0] < 0.3 * truth
    assert (found.deviations[:-1] == 0).all()


def test_a_stopped_trial_of_a_young_study_teaches_nothing_yet() -> None:
    told = tiered.history(3)
    stopped = tiered.running(99, tiered.point(0.6, 0.8)).stopped("beaten", 1.0)
    found = Record.of(tiered.PROBLEM, [*told, stopped], box(tiered.PROBLEM, told))
    assert np.isnan(found.losses[-1, 0])
