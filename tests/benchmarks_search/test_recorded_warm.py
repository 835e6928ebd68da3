"""The recorded study of another model, and what misleading studies make of it."""

from benchmarks.search import problems
from benchmarks.search.race import version
from benchmarks.search.recorded_warm import reversed_order, shuffled, stories, warm
from benchmarks.search.searcher import Ours, make
from hpo.search.warm_start import WarmSampler
from tests.benchmarks_search.toys import conditional


def _perplexities(trials: object) -> list[float]:
    return [trial.value("perplexity") for trial in trials]  # type: ignore[attr-defined]  # trials of a study


def test_the_earlier_study_knows_the_objectives_and_all_parameters_of_the_recorded_table() -> None:
    (earlier,) = warm().earlier
    problem = warm().problem
    assert len(earlier.completed) == 60
    assert earlier.measured(problem) == ("perplexity", "prefill_latency_ratio")
    assert earlier.parameters(problem.space) == tuple(problem.space.parameters)


def test_in_reverse_what_did_best_did_worst_and_the_dense_model_is_as_it_was() -> None:
    true, (turned,) = stories(), reversed_order().earlier
    assert turned.dense == true.dense
    before, after = _perplexities(true.completed[1:]), _perplexities(turned.completed[1:])
    assert sorted(before) == sorted(after)
    assert after[before.index(min(before))] == max(before)
    assert after[before.index(max(before))] == min(before)


def test_shuffled_the_values_are_the_same_at_other_trials() -> None:
    true, (mixed,) = stories(), shuffled().earlier
    before, after = _perplexities(true.completed), _perplexities(mixed.completed)
    assert sorted(before) == sorted(after)
    assert before[0] == after[0]
    assert before != after


def test_samplers_are_told_of_earlier_studies() -> None:
    told = make("sobol", warm().problem, seed=0, initial=4, earlier=warm().earlier)
    assert isinstance(told, Ours)
    assert isinstance(told.sampler, WarmSampler)
    plain = make("sobol", conditional().problem, seed=0, initial=4)
    assert isinstance(plain, Ours)
    assert not isinstance(plain.sampler, WarmSampler)


def test_problems_with_an_earlier_study_are_known_by_name() -> None:
    for name in ("recorded", "recorded_warm", "recorded_reversed", "recorded_shuffled", "dtlz2"):
        assert problems.is_warm(name) == bool(problems.load(name).earlier), name


def test_versions_cover_the_code_for_stopping_and_for_earlier_studies_where_there_are_any() -> None:
    plain = version("recorded", "bayesian", False)
    stopping, warm = version("recorded", "bayesian", True), version("recorded_warm", "bayesian", False)
    assert len({plain, stopping, warm}) == 3
    assert stopping.startswith(f"{plain}, ")
    assert version("recorded_warm", "random", False) == version("recorded", "random", False)
