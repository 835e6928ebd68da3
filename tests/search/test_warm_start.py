"""Beginning where earlier studies ended."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from hpo.metric import Source
from hpo.problem import Preview, Problem
from hpo.search.earlier import EarlierStudy, Unusable
from hpo.search.pool import Pool
from hpo.search.sobol import SobolSampler, spread
from hpo.search.start import opening
from hpo.search.warm_start import WarmSampler, WarmStart, rank_correlation
from hpo.space import Candidate, Choice, Float, Int, SearchSpace
from hpo.trial import Cause, Limit, Measurement, Objective, Trial
from tests.search.problems import plan_of

Parameter = Float | Int | Choice
OBJECTIVES = (Objective(metric="perplexity"), Objective(metric="weight_memory"))
X = Float(low=0.0, high=1.0)
XS = tuple(i / 10 for i in range(11))


def _problem(**more: Parameter) -> Problem:
    """A number x that decides about the bytes, and what else is given; dense is x = 1, and 3 is refused."""

    def preview(candidates: Sequence[Candidate]) -> Preview:
        xs = np.array([float(c.values.get("x", 1.0)) for c in candidates]).reshape(-1, 1)
        refused = xs[:, 0] == 3
        return Preview(
            exact=np.where(xs == 3, np.nan, 1000 * (1 + xs)),
            features=np.where(xs == 3, np.nan, np.zeros_like(xs)),
            plans=tuple("" if no else plan_of(c.items) for c, no in zip(candidates, refused, strict=True)),
            refusals=tuple("no" if no else "" for no in refused),
        )

    return Problem(SearchSpace({"x": X, **more}), OBJECTIVES, ("weight_memory",), preview)


def _trial(number: int, candidate: Candidate, **values: float) -> Trial:
    origin = "anchor:dense" if candidate.is_dense else "test"
    trial = Trial(number, candidate, origin, plan_of(candidate.items)).started("worker", 0.0)
    measured = tuple(Measurement(name, value, "", Source.MEASURED) for name, value in values.items())
    return replace(trial, measurements=measured).completed(1.0)


def _trials(perplexity: Callable[[float], float], xs: Sequence[float] = XS) -> tuple[Trial, ...]:
    """The dense model, whose x counts as 1, and a trial for each x."""
    tried = [Candidate(), *(Candidate.of({"x": x}) for x in xs)]
    return tuple(
        _trial(i, c, perplexity=perplexity(float(c.values.get("x", 1.0)))) for i, c in enumerate(tried)
    )


def _falling(x: float) -> float:
    return 10 * (1 + (1 - x) ** 2)


def _earlier(trials: Sequence[Trial], space: SearchSpace | None = None, name: str = "before") -> EarlierStudy:
    return EarlierStudy(name, space or SearchSpace({"x": X}), OBJECTIVES, tuple(trials))


def _asked(problem: Problem, candidates: Sequence[Candidate]) -> list[float]:
    guesses = problem.preview(candidates).guesses
    assert guesses is not None
    assert guesses.shape == (len(candidates), 1)
    found: list[float] = guesses[:, 0].tolist()
    return found


def _at(*xs: float) -> list[Candidate]:
    return [Candidate.of({"x": x}) for x in xs]


def test_guesses_order_candidates_as_the_earlier_study_did() -> None:
    problem = _problem()
    informed = WarmStart(problem, (_earlier(_trials(_falling)),)).informed([])
    guessed = _asked(informed, _at(0.05, 0.35, 0.65, 0.95))
    assert guessed == sorted(guessed, reverse=True)
    assert 0.8 < guessed[0] <= 1  # x = 0 was the worst there
    assert 0 <= guessed[-1] < 0.2


def test_what_is_expected_is_a_feature_more_and_all_else_is_as_it_was() -> None:
    problem = _problem()
    informed = WarmStart(problem, (_earlier(_trials(_falling)),)).informed([])
    plain, told = problem.preview(_at(0.1, 0.9)), informed.preview(_at(0.1, 0.9))
    assert told.features.shape == (2, 2)
    assert (told.features[:, :1] == plain.features).all()
    assert told.features[0, 1] > told.features[1, 1]
    assert (told.exact == plain.exact).all()
    assert told.plans == plain.plans
    assert replace(informed, preview=problem.preview) == problem


def test_a_model_of_another_scale_leads_one_to_expect_the_same() -> None:
    problem, asked = _problem(), _at(0.05, 0.5, 0.95)
    small = WarmStart(problem, (_earlier(_trials(_falling)),)).informed([])
    large = WarmStart(problem, (_earlier(_trials(lambda x: 37 * _falling(x))),)).informed([])
    assert _asked(large, asked) == pytest.approx(_asked(small, asked), abs=1e-3)


def test_trials_that_failed_or_have_no_value_teach_nothing() -> None:
    problem, trials = _problem(), _trials(_falling)
    failed = Trial(20, Candidate.of({"x": 0.55}), "test").failed(Cause.NOT_A_NUMBER, "diverged", 1.0)
    without = _trial(21, Candidate.of({"x": 0.45}), prefill_latency=1.0)
    more = WarmStart(problem, (_earlier([*trials, failed, without]),)).informed([])
    less = WarmStart(problem, (_earlier(trials),)).informed([])
    assert _asked(more, _at(0.2, 0.5)) == _asked(less, _at(0.2, 0.5))


def test_a_parameter_that_the_earlier_study_did_not_have_changes_nothing_of_what_is_expected() -> None:
    problem = _problem(kind=Choice(choices=("a", "b")))
    earlier = _earlier(_trials(_falling))
    assert earlier.parameters(problem.space) == ("x",)
    informed = WarmStart(problem, (earlier,)).informed([])
    candidates = [Candidate.of({"x": x, "kind": kind}) for x in (0.2, 0.8) for kind in ("a", "b")]
    guessed = _asked(informed, candidates)
    assert guessed[0] == guessed[1] > guessed[2] == guessed[3]


def test_a_candidate_that_is_refused_has_nothing_expected_of_it() -> None:
    informed = WarmStart(_problem(), (_earlier(_trials(_falling)),)).informed([])
    preview = informed.preview([Candidate.of({"x": 3.0}), *_at(0.5)])
    assert preview.guesses is not None
    assert np.isnan(preview.guesses).tolist() == [[True], [False]]
    assert np.isnan(preview.features).any(axis=1).tolist() == [True, False]
    assert len(Pool.of(informed, [Candidate.of({"x": 3.0})])) == 0


def test_of_several_earlier_studies_each_is_a_feature_and_the_guess_is_their_mean() -> None:
    problem = _problem()
    two = _earlier(_trials(lambda x: 20 + 5 * abs(x - 0.5) + 5 * (1 - x)), name="other")
    informed = WarmStart(problem, (_earlier(_trials(_falling)), two)).informed([])
    preview = informed.preview(_at(0.1, 0.6))
    assert preview.features.shape == (2, 3)
    assert preview.guesses is not None
    assert preview.guesses[:, 0] == pytest.approx(preview.features[:, 1:].mean(axis=1))


def test_an_earlier_study_that_misleads_is_dropped_and_the_search_is_as_if_it_had_not_been() -> None:
    problem = _problem()
    warm = WarmStart(problem, (_earlier(_trials(_falling)),))
    history = list(_trials(lambda x: 5 + x, xs=(0.0, 0.3, 0.6, 0.9)))
    assert warm.informed(history) is problem
    sampler = SobolSampler()
    asked = WarmSampler(sampler, warm, initial=8).ask(problem, history, 3, seed=1)
    assert asked == sampler.ask(problem, history, 3, seed=1)


def test_an_earlier_study_is_taken_at_its_word_until_five_trials_can_tell() -> None:
    warm = WarmStart(_problem(), (_earlier(_trials(_falling)),))
    against = _trials(lambda x: 5 + x, xs=(0.0, 0.3, 0.6, 0.9))
    assert warm.believed(against[:4]) == warm.expectations
    assert warm.believed(against) == ()
    running = [Trial(9, Candidate.of({"x": 0.1}), "test").started("worker", 0.0)]
    assert warm.believed([*against[:4], *running]) == warm.expectations


def test_of_two_studies_only_the_one_that_misleads_is_dropped() -> None:
    wrong = _earlier(_trials(lambda x: 5 + x), name="wrong")
    warm = WarmStart(_problem(), (_earlier(_trials(_falling)), wrong))
    history = _trials(_falling, xs=(0.0, 0.3, 0.6, 0.9))
    assert [e.study for e in warm.believed(history)] == ["before"]


def test_a_search_begins_by_what_is_expected_whatever_the_sampler() -> None:
    # Waste saves no bytes and costs quality, which only the earlier study knows.
    steps: dict[str, Parameter] = {"x": Float(low=0.0, high=1.0, step=0.1), "waste": Choice(choices=(0, 1))}
    problem = replace(_problem(), space=SearchSpace(steps))
    tried = [Candidate(), *(Candidate.of({"x": x, "waste": w}) for x in XS for w in (0, 1))]
    values = [
        10.0 if c.is_dense else _falling(float(c.values["x"])) + 10 * int(c.values["waste"]) for c in tried
    ]
    trials = [_trial(i, c, perplexity=v) for i, (c, v) in enumerate(zip(tried, values, strict=True))]
    warm = WarmStart(problem, (_earlier(trials, problem.space),))
    asked = WarmSampler(SobolSampler(), warm, initial=6).ask(problem, [], 6, seed=0)
    assert asked == opening(warm.informed([]), [], 6, seed=0, turn=1)
    assert [c.values["waste"] for c in asked] == [0] * 6


def test_after_the_start_the_sampler_is_asked_about_the_informed_problem() -> None:
    class Spy(SobolSampler):
        seen: tuple[int, int, int]

        def ask(self, problem: Problem, history: Sequence[Trial], count: int, seed: int) -> list[Candidate]:
            self.seen = problem.preview(_at(0.5)).features.shape[1], len(history), count
            return spread(problem, history, count, seed)

    problem, spy = _problem(), Spy()
    warm = WarmStart(problem, (_earlier(_trials(_falling)),))
    asked = WarmSampler(spy, warm, initial=2).ask(problem, [], 5, seed=0)
    assert spy.seen == (2, 2, 3)
    assert len(set(asked)) == 5


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        (_trials(_falling)[1:], "dense model has no completed trial"),
        (_trials(_falling, xs=XS[:6]), "it has 7 completed trials, and at least 8"),
    ],
)
def test_a_study_that_tells_too_little_is_refused(trials: Sequence[Trial], message: str) -> None:
    with pytest.raises(Unusable, match=message):
        _earlier(trials)


def test_a_study_without_the_metric_that_is_searched_is_refused() -> None:
    tried = [Candidate(), *_at(*XS)]
    earlier = _earlier([_trial(i, c, prefill_latency=1.0 + i) for i, c in enumerate(tried)])
    with pytest.raises(Unusable, match="measured none of perplexity; it knows prefill_latency"):
        earlier.check(_problem())


@pytest.mark.parametrize(
    ("theirs", "common"),
    [
        (Float(low=0.5, high=2.0), True),
        (Float(low=1.5, high=2.0), False),
        (Choice(choices=(0.5, 7.0)), True),
        (Choice(choices=("x", "y")), False),
    ],
)
def test_a_parameter_is_in_common_where_it_may_have_a_value_of_both(theirs: Parameter, common: bool) -> None:
    earlier = _earlier(_trials(_falling), SearchSpace({"x": theirs}))
    assert bool(earlier.parameters(_problem().space)) == common


def test_a_study_without_a_common_parameter_is_refused() -> None:
    earlier = _earlier(_trials(_falling), SearchSpace({"z": X}))
    with pytest.raises(Unusable, match="no parameter of the space is one of its own; they are z"):
        earlier.check(_problem())


def test_the_box_of_the_earlier_study_ends_at_its_limit() -> None:
    limited = (Objective(metric="perplexity", limit=Limit(ratio_to_dense=1.5)),)
    earlier = replace(_earlier(_trials(_falling)), objectives=limited)
    assert earlier.reference("perplexity") == pytest.approx(1.5)
    assert _earlier(_trials(_falling)).reference("perplexity") == pytest.approx(2.0)  # the worst, at x = 0


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation(np.array([1.0, 2, 3, 4]), np.array([10.0, 30, 20, 40])) == pytest.approx(0.8)
    assert rank_correlation(np.array([1.0, 1, 2]), np.array([1.0, 2, 3])) == pytest.approx(3**0.5 / 2)
    assert rank_correlation(np.array([1.0, 2]), np.array([5.0, 5])) == 0.0
