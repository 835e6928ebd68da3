"""Importances on trials whose objectives hang on what is known to the test."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import optuna
import pytest

from dashboards.importance import WHY_NONE, Importances, draw_importances, importances, narrowest, worth_again
from dashboards.ped_anova import divergences
from hpo.space import Candidate, Choice, Float, Int, SearchSpace, Value
from hpo.trial import Objective, Trial
from tests.dashboards.hand import answered, measurement

OBJECTIVES = (Objective(metric="perplexity"), Objective(metric="weight_memory"))
SPACE = SearchSpace(
    {
        "kind": Choice(choices=("a", "b")),
        "keep": Float(low=0.1, high=1.0),
        "rate": Float(low=1e-5, high=1e-1, log=True),
        "only_a": Int(low=1, high=9, step=3, when={"kind": ("a",)}),
        "fixed": Choice(choices=("svd",)),
    }
)


def drawn(count: int, perplexity: Callable[[dict[str, Value]], float], seed: int = 0) -> list[Trial]:
    """Return completed trials drawn evenly; their memory is 100 bytes times what they keep."""
    random = np.random.default_rng(seed)
    trials = []
    for number in range(count):
        candidate = SPACE.from_unit([float(u) for u in random.random(len(SPACE))])
        values = dict(candidate.values)
        found = (
            measurement("perplexity", perplexity(values)),
            measurement("weight_memory", 100 * float(values["keep"])),
        )
        done = answered(number, *found)
        trials.append(Trial(**{**vars(done), "candidate": candidate}))
    return trials


def by_rate(values: dict[str, Value]) -> float:
    return 10 + abs(math.log10(float(values["rate"])) + 3)


def found_in(trials: list[Trial], space: SearchSpace = SPACE) -> Importances:
    found = importances(space, OBJECTIVES, trials)
    assert found is not None
    return found


def share(found: Importances, parameter: str, metric: str) -> float:
    return found.shares[found.parameters.index(parameter)][found.objectives.index(metric)]


def test_what_alone_decides_an_objective_has_most_of_its_importance() -> None:
    found = found_in(drawn(200, by_rate))
    assert share(found, "rate", "perplexity") > 0.8
    assert share(found, "keep", "weight_memory") > 0.8
    assert set(found.parameters[:2]) == {"rate", "keep"}
    assert "for perplexity: rate (" in found.words
    assert "for weight memory: keep (" in found.words


def test_shares_sum_to_one_for_each_objective() -> None:
    found = found_in(drawn(50, by_rate))
    assert [sum(column) for column in zip(*found.shares, strict=True)] == pytest.approx([1, 1])


def test_a_parameter_with_one_value_is_left_out() -> None:
    assert sorted(found_in(drawn(20, by_rate)).parameters) == ["keep", "kind", "only_a", "rate"]


def test_a_parameter_of_one_branch_says_how_many_trials_have_it() -> None:
    trials = drawn(60, by_rate)
    having = sum("only_a" in t.candidate.values for t in trials)
    found = found_in(trials)
    assert 0 < having < 60
    assert found.having[found.parameters.index("only_a")] == having
    hover = draw_importances(found).data[0].hovertext[found.parameters.index("only_a")][0]
    assert f"among {having} of 60 trials that have it" in hover


def test_a_choice_that_decides_is_found() -> None:
    found = found_in(drawn(100, lambda v: 10.0 + (v["kind"] == "b") + float(v["keep"]) / 100))
    assert found.parameters[0] in ("kind", "keep")
    assert share(found, "kind", "perplexity") > share(found, "rate", "perplexity")


def test_the_numbers_are_those_of_optunas_own_study() -> None:
    space = SearchSpace({"x": Float(low=0, high=1), "y": Float(low=0, high=1)})
    random = np.random.default_rng(1)
    points, trials = random.random((40, 2)), []
    losses = (points[:, 0] - 0.3) ** 2 + 0.1 * points[:, 1]
    theirs = optuna.create_study()
    flat = optuna.distributions.FloatDistribution(0, 1)
    for number, (x, y) in enumerate(points):
        candidate = Candidate.of({"x": float(x), "y": float(y)})
        trials.append(Trial(number, candidate, "sobol"))
        theirs.add_trial(
            optuna.trial.create_trial(
                params={"x": float(x), "y": float(y)},
                distributions={"x": flat, "y": flat},
                value=float(losses[number]),
            )
        )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = evaluator.evaluate(theirs, ["x", "y"])
    ours = divergences(space, ["x", "y"], trials, losses[:, None], 0.2)
    assert ours[:, 0] == pytest.approx([expected["x"], expected["y"]])


def test_an_objective_that_never_changes_tells_nothing() -> None:
    found = found_in(drawn(30, lambda _: 10.0))
    assert all(math.isnan(row[0]) for row in found.shares)
    assert "perplexity: nothing can be told" in found.words
    assert draw_importances(found).data[0].text[0][0] == "–"


def test_an_objective_that_no_trial_has_tells_nothing() -> None:
    objectives = (*OBJECTIVES, Objective(metric="energy"))
    found = importances(SPACE, objectives, drawn(30, by_rate))
    assert found is not None
    assert all(math.isnan(row[2]) for row in found.shares)


def test_few_trials_say_why_there_is_nothing() -> None:
    trials = drawn(9, by_rate)
    assert importances(SPACE, OBJECTIVES, trials) is None
    assert "once 10 trials of the search space are completed" in WHY_NONE
    assert WHY_NONE in draw_importances(None).layout.annotations[0].text


def test_trials_outside_the_space_are_not_looked_at() -> None:
    dense = answered(99, measurement("perplexity", 9), origin="anchor:dense")
    moved = Trial(**{**vars(drawn(1, by_rate)[0]), "candidate": Candidate.of({"elsewhere": 3}), "number": 98})
    found = found_in([*drawn(20, by_rate), moved, dense])
    assert (found.looked_at, found.completed) == (20, 22)
    assert "20 of 22 completed trials (the others lie outside the search space)" in found.caption


def test_thousands_of_trials_are_thinned_evenly_and_it_says_so() -> None:
    trials = drawn(1, by_rate) * 3000
    many = [Trial(**{**vars(t), "number": n}) for n, t in enumerate(trials)]
    found = found_in(many)
    assert (found.looked_at, found.completed) == (1000, 3000)
    assert "1,000 of 3,000 completed trials, taken evenly" in found.caption


def test_of_few_trials_more_than_a_tenth_count_as_good() -> None:
    assert found_in(drawn(10, by_rate)).best == 0.5
    assert found_in(drawn(20, by_rate)).best == 0.25
    assert found_in(drawn(80, by_rate)).best == 0.1


def test_it_is_computed_again_when_a_tenth_more_is_completed() -> None:
    assert [worth_again(now, 100) for now in (100, 109, 110, 150)] == [False, False, True, True]
    assert worth_again(0, -1)  # never computed
    assert not worth_again(0, 0)
    assert worth_again(3, 100)  # deleted, and made again


def test_names_that_are_cut_alike_keep_rows_of_their_own_and_tags_are_text() -> None:
    names = tuple(f"<b>{'x' * 200}{i}{'y' * 90}" for i in range(3))
    shares = tuple((0.1 * i, 1 - 0.1 * i) for i in range(3))
    found = Importances(names, ("perplexity", "energy"), shares, (9, 9, 9), 9, 9, 0.5)
    heat = draw_importances(found).data[0]
    assert len(set(heat.y)) == 3
    assert all(name.startswith("&lt;b&gt;x") and len(name) < 50 for name in heat.y)
    assert "<b>" not in heat.hovertext[0][0]


def test_more_objectives_make_a_wider_figure() -> None:
    two = found_in(drawn(20, by_rate))
    twelve = Importances(("a",), ("perplexity",) * 12, ((0.5,) * 12,), (9,), 9, 9, 0.5)
    assert narrowest(twelve) > narrowest(two) > narrowest(None)


def test_shares_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="1 rows of shares for 2 parameters in 1 metrics"):
        Importances(("a", "b"), ("energy",), ((1.0,),), (1, 1), 1, 1, 0.1)
