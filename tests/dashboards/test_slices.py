import json

import pytest

from dashboards.front import Standing
from dashboards.slices import MOST, Slice, draw_slice, parameters_of, slice_of
from hpo.space import Candidate, Choice, Float, Int, SearchSpace, Value
from hpo.trial import Trial
from tests.dashboards.hand import OBJECTIVES, TRIALS, answered, asked, measurement, pair

SPACE = SearchSpace(
    {
        "kind": Choice(choices=("svd", "mpo", "never")),
        "rate": Float(low=1e-5, high=1e-1, log=True),
        "k": Int(low=1, high=9),
        "fixed": Choice(choices=(1,)),
    }
)


def with_values(trial: Trial, **values: Value) -> Trial:
    return Trial(**{**vars(trial), "candidate": Candidate.of(values)})


STUDY = (
    TRIALS[0],
    with_values(TRIALS[1], kind="svd", k=3, rate=1e-4),
    with_values(TRIALS[2], kind="mpo", k=5, rate=1e-2),
    with_values(TRIALS[3], kind="mpo", k=7),
    with_values(TRIALS[4], kind="svd", k=4, bits=8),
)
"""1 and 4 are on the front, 2 is dominated, 3 breaks the limit; the dense model has no parameter."""


def slice_in(parameter: str, metric: str = "perplexity", trials: tuple[Trial, ...] = STUDY) -> Slice:
    return slice_of(SPACE, OBJECTIVES, trials, parameter, metric)


def test_a_number_is_its_own_place() -> None:
    seen = slice_in("k")
    assert [(s.trial.number, s.x, s.y) for s in seen.spots] == [
        (1, 3, 20),
        (2, 5, 25),
        (3, 7, 40),
        (4, 4, 15),
    ]
    assert seen.categories == ()


def test_the_front_and_what_breaks_a_limit_are_told_apart() -> None:
    figure = draw_slice(slice_in("k"))
    found = {trace.name: trace.customdata for trace in figure.data}
    assert found == {"dominated": (2,), "breaks a limit": (3,), "front": (1, 4)}
    assert len({trace.marker.symbol for trace in figure.data}) == 3


def test_categories_lie_at_their_places_and_a_little_aside() -> None:
    seen = slice_in("kind")
    assert seen.categories == ("svd", "mpo", "never")
    places = {s.trial.number: s.x for s in seen.spots}
    assert all(abs(places[number]) <= 0.25 for number in (1, 4))
    assert all(abs(places[number] - 1) <= 0.25 for number in (2, 3))
    assert len(set(places.values())) == 4
    axis = draw_slice(seen).layout.xaxis
    assert (axis.tickvals, axis.ticktext) == ((0, 1, 2), ("svd", "mpo", "never"))


def test_a_trial_is_always_drawn_at_the_same_place() -> None:
    first, again = slice_in("kind"), slice_in("kind", trials=STUDY[:3])
    assert [s.x for s in first.spots[:2]] == [s.x for s in again.spots]


def test_a_logarithmic_parameter_has_a_logarithmic_axis() -> None:
    axis = draw_slice(slice_in("rate")).layout.xaxis
    assert axis.type == "log"
    assert axis.range[0] < -4 < -2 < axis.range[1]
    assert draw_slice(slice_in("k")).layout.xaxis.type != "log"


def test_a_value_that_has_no_logarithm_keeps_the_axis_linear() -> None:
    none = with_values(pair(9, 20, 40, "anchor:none"), rate=0.0)
    seen = slice_in("rate", trials=(*STUDY, none))
    assert draw_slice(seen).layout.xaxis.type != "log"
    assert len(seen.spots) == 3


def test_the_limit_is_drawn() -> None:
    figure = draw_slice(slice_in("k"))
    assert [shape.y0 for shape in figure.layout.shapes] == [30]
    assert draw_slice(slice_in("k", "weight_memory")).layout.shapes == ()


def test_the_sentence_says_how_many_have_it() -> None:
    assert slice_in("rate").words == (
        "2 of 5 completed trials have rate and perplexity; on the front: 1. "
        "The best perplexity, 20 ppl, was with 0.0001 (trial 1)."
    )


def test_what_leaves_no_choice_is_not_offered_and_what_is_outside_the_space_is() -> None:
    assert parameters_of(SPACE, STUDY) == ["kind", "rate", "k", "bits"]


def test_outside_the_space_numbers_are_numbers_and_words_are_categories() -> None:
    odd = (STUDY[0], with_values(TRIALS[1], shift="0,1", bits=8), with_values(TRIALS[2], shift="1,0", bits=4))
    assert slice_in("bits", trials=odd).categories == ()
    assert slice_in("shift", trials=odd).categories == ("0,1", "1,0")


def test_choices_of_numbers_and_truths_are_categories() -> None:
    space = SearchSpace({"bits": Choice(choices=(2, 4)), "sorted": Choice(choices=(True, False))})
    trial = with_values(TRIALS[1], bits=4, sorted=False)
    for name, place in (("bits", 1), ("sorted", 1)):
        (spot,) = slice_of(space, OBJECTIVES, [TRIALS[0], trial], name, "perplexity").spots
        assert abs(spot.x - place) <= 0.25


@pytest.mark.parametrize("trials", [(), (asked(0),), TRIALS[:1]])
def test_without_a_trial_that_has_both_it_says_so(trials: tuple[Trial, ...]) -> None:
    seen = slice_in("kind", trials=trials)
    assert seen.words == ""
    assert "No completed trial has both kind and perplexity" in draw_slice(seen).layout.annotations[0].text


def test_a_space_without_a_choice_has_no_slice() -> None:
    space = SearchSpace({"fixed": Choice(choices=(1,))})
    assert parameters_of(space, TRIALS[:1]) == []
    seen = slice_of(space, OBJECTIVES, TRIALS, "", "perplexity")
    assert "leaves nothing to choose" in draw_slice(seen).layout.annotations[0].text


def test_trials_without_the_objective_are_left_out() -> None:
    without = with_values(answered(7, measurement("weight_memory", 5)), kind="svd")
    assert slice_in("kind", trials=(*STUDY, without)).having == 4


def test_thousands_are_thinned_but_the_front_stays() -> None:
    cloud = [with_values(pair(10 + n, 25, 90), k=1 + n % 9) for n in range(3000)]
    seen = slice_in("k", trials=(*STUDY, *cloud))
    assert len(seen.spots) <= MOST
    front = {s.trial.number for s in seen.spots if s.standing is Standing.FRONT}
    assert front == {1, 4}
    drawn = f"({len(seen.spots):,} of them are drawn)"
    said = f"3,004 of 3,005 completed trials have k and perplexity {drawn}; on the front: 2."
    assert seen.words == f"{said} The best perplexity, 15 ppl, was with 4 (trial 4)."


def test_names_with_tags_are_text() -> None:
    name = "<b>" + "x" * 300
    space = SearchSpace({name: Choice(choices=("<i>" + "y" * 300, "'\"\N{GRINNING FACE}"))})
    trial = with_values(TRIALS[1], **{name: "<i>" + "y" * 300})
    figure = draw_slice(slice_of(space, OBJECTIVES, [TRIALS[0], trial], name, "perplexity"))
    assert "<i>" not in json.dumps(figure.to_plotly_json()["layout"]["xaxis"])
    assert "<b>" not in figure.layout.xaxis.title.text
    assert len(figure.layout.xaxis.ticktext[0]) < 40


def test_another_metric_than_an_objective_is_refused() -> None:
    with pytest.raises(ValueError, match="energy is no objective"):
        slice_in("k", "energy")
