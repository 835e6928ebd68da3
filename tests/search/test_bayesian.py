"""Does the model-based search learn what it should?"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from hpo.problem import Preview, Problem
from hpo.search.bayesian import BayesianSampler
from hpo.search.generate import sobol
from hpo.search.sobol import SobolSampler
from hpo.space import Candidate
from hpo.trial import Cause, Limit, Objective, Trial, TrialState
from tests.search.problems import Toy, dtlz2, line


@pytest.fixture
def no_fallback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail if the sampler says that it did without its model."""
    caplog.set_level(logging.WARNING, logger="hpo.search")
    yield
    assert not caplog.records, caplog.records[0].getMessage()


@pytest.mark.usefixtures("no_fallback")
def test_it_finds_a_larger_front_than_quasi_random_search() -> None:
    toy, seeds = dtlz2(), range(3)
    learnt = [toy.hypervolume(toy.search(BayesianSampler(initial=6), 20, seed)) for seed in seeds]
    blind = [toy.hypervolume(toy.search(SobolSampler(), 20, seed)) for seed in seeds]
    assert np.median(learnt) > 1.3 * np.median(blind)


@pytest.mark.usefixtures("no_fallback")
def test_it_closes_in_on_the_best_point_of_one_objective() -> None:
    toy = line(("perplexity",), ())  # best at 0
    history = toy.search(BayesianSampler(initial=4), 10, seed=0)
    assert min(float(trial.candidate.values["x"]) for trial in history) < 0.01


@pytest.mark.usefixtures("no_fallback")
def test_it_stays_away_from_where_trials_fail() -> None:
    """Twelve trials, of which all with x above 0.5 ran out of memory, although the best lies there."""
    toy = line(("perplexity", "prefill_latency"), ())
    history = []
    for i, x in enumerate(np.linspace(0.05, 0.95, 12)):
        trial = toy.trial(i, Candidate.of({"x": float(x), "fixed": "only"}))
        trial = with_values(trial, 2 - x, 3 - x)
        history.append(failed(trial, Cause.OUT_OF_MEMORY) if x > 0.5 else trial)
    asked = BayesianSampler().ask(toy.problem, history, 3, seed=0)
    assert max(float(candidate.values["x"]) for candidate in asked) < 0.6
    forgiven = [failed(t, Cause.LOST_WORKER) if t.state is TrialState.FAILED else t for t in history]
    asked = BayesianSampler().ask(toy.problem, forgiven, 3, seed=0)
    assert max(float(candidate.values["x"]) for candidate in asked) > 0.6


@pytest.mark.usefixtures("no_fallback")
def test_it_does_not_crowd_around_what_is_under_way() -> None:
    toy = line(("perplexity",), ())
    history = [toy.trial(i, Candidate.of({"x": x, "fixed": "only"})) for i, x in enumerate((0.2, 0.5, 0.8))]
    first = BayesianSampler(initial=3).ask(toy.problem, history, 1, seed=0)[0]
    pending = [*history, toy.trial(3, first, state=TrialState.RUNNING)]
    second = BayesianSampler(initial=3).ask(toy.problem, pending, 1, seed=0)[0]
    batch = BayesianSampler(initial=3).ask(toy.problem, history, 2, seed=0)
    assert batch[0] == first
    for other in (second, batch[1]):
        assert abs(float(other.values["x"]) - float(first.values["x"])) > 0.005


@pytest.mark.usefixtures("no_fallback")
def test_what_a_stopped_trial_measured_is_used() -> None:
    """Perplexity is known of stopped trials alone; the model still finds where it is best."""
    toy = line(("perplexity", "weight_memory"), ("weight_memory",))
    history: list[Trial] = []
    for i, candidate in enumerate(sobol(toy.problem.space, 8, seed=1)):
        trial = toy.trial(i, candidate)
        history.append(replace(trial, state=TrialState.STOPPED, message="not worth finishing"))
    asked = BayesianSampler().ask(toy.problem, history, 1, seed=0)
    assert 0 <= float(asked[0].values["x"]) <= 0.55  # between the two optima, 0 and 0.5


@pytest.mark.usefixtures("no_fallback")
def test_exact_objectives_alone_need_no_model_and_few_trials() -> None:
    toy = line(("weight_memory", "macs"), ("weight_memory", "macs"))
    history = toy.search(BayesianSampler(initial=2), 8, seed=0)
    on_front = [-1e-9 <= float(trial.candidate.values["x"]) <= 0.5 for trial in history[2:]]
    assert all(on_front)


@pytest.mark.usefixtures("no_fallback")
def test_a_limit_on_what_must_be_measured_is_learnt() -> None:
    """Perplexity is best at 0 and latency at 0.5; 0.3 to 0.7 keeps the latency's limit."""
    toy = line(("perplexity", "prefill_latency"), ())
    limited = Objective(metric="prefill_latency", limit=Limit(value=1.04))
    problem = replace(toy.problem, objectives=(toy.problem.objectives[0], limited))
    history = [toy.trial(i, candidate) for i, candidate in enumerate(sobol(problem.space, 10, seed=0))]
    asked = BayesianSampler().ask(problem, history, 4, seed=0)
    assert all(0.29 < float(candidate.values["x"]) < 0.52 for candidate in asked)


def test_without_a_model_it_is_quasi_random_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    toy = dtlz2()
    one = [toy.trial(0, sobol(toy.problem.space, 1, seed=0)[0])]
    none = [failed(one[0], Cause.ERROR)]
    for history, why in ((one, "fewer than 2 distinct"), (none, "no trial has a value for perplexity")):
        caplog.clear()
        asked = BayesianSampler(initial=1).ask(toy.problem, history, 2, seed=0)
        assert asked == SobolSampler().ask(toy.problem, history, 2, seed=0)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert why in caplog.text


@pytest.mark.usefixtures("no_fallback")
def test_an_anchor_that_cannot_be_previewed_is_left_out() -> None:
    toy = dtlz2()
    history = [toy.trial(i, c) for i, c in enumerate(sobol(toy.problem.space, 9, seed=0))]
    outside = replace(history[0], number=9, candidate=Candidate(), origin="anchor:dense", plan_hash="")
    problem = refusing_dense(toy)
    asked = BayesianSampler().ask(problem, [*history, outside], 1, seed=0)
    assert len(asked) == 1


def refusing_dense(toy: Toy) -> Problem:
    """Return the toy's problem with a preview that refuses the empty candidate."""

    def preview(candidates: Sequence[Candidate]) -> Preview:
        stand_in = Candidate.of({f"x{i}": 0.5 for i in range(6)})
        found = toy.problem.preview([stand_in if c.is_dense else c for c in candidates])
        dense = np.array([c.is_dense for c in candidates], dtype=bool)
        return Preview(
            exact=np.where(dense[:, None], np.nan, found.exact),
            features=found.features,
            plans=tuple("" if no else plan for no, plan in zip(dense, found.plans, strict=True)),
            refusals=tuple("no plan" if no else "" for no in dense),
        )

    return replace(toy.problem, preview=preview)


def failed(trial: Trial, cause: Cause) -> Trial:
    return replace(trial, state=TrialState.FAILED, cause=cause, measurements=())


def with_values(trial: Trial, *values: float) -> Trial:
    new = [replace(m, value=value) for m, value in zip(trial.measurements, values, strict=True)]
    return replace(trial, measurements=tuple(new))
