import json

import pytest

from dashboards.calibration import NOT_KEPT, calibrations, draw_calibration, usual_count
from hpo.skill import Foretold, Skill

INSIDE = Foretold(3, measured=10.0, expected=9.0, low=7.0, high=12.0)
OUTSIDE = Foretold(5, measured=8.0, expected=11.0, low=9.0, high=14.0)
SKILL = Skill("perplexity", 2, 0.4, 0.5, (INSIDE, OUTSIDE))


def test_the_usual_count_is_that_of_a_binomial() -> None:
    # Of 10 at 90 %: 0.9^10 = 34.9 % have all ten; 6 or fewer are 1.28 %, 7 or fewer 7.0 %.
    assert usual_count(10, 0.9) == (7, 10)
    # One trial comes out inside or not: both are usual.
    assert usual_count(1, 0.9) == (0, 1)
    # Of 100 at a half: 40 to 60, the textbook's two standard deviations.
    assert usual_count(100, 0.5) == (40, 60)


def test_the_usual_count_of_very_many_trials_is_still_a_number() -> None:
    low, high = usual_count(5000, 0.9)
    # 4500 +- 1.96 x sqrt(5000 x 0.09) = 4500 +- 41.6
    assert abs(low - 4458) <= 2
    assert abs(high - 4542) <= 2


@pytest.mark.parametrize(
    ("coverage", "verdict"),
    [
        (0.9, "90 of 100 trials (90.0 %) came out within the interval that promises 90.0 %"),
        (0.9, "which agrees with what it promises."),
        (0.7, "so it is too sure of itself."),
        (1.0, "so it is more careful than it need be."),
    ],
)
def test_the_sentence_holds_promised_against_actual_coverage(coverage: float, verdict: str) -> None:
    (found,) = calibrations([Skill("prefill_latency", 100, 0.2, coverage)])
    assert found.words.startswith("prefill latency: ")
    assert verdict in found.words


def test_the_figure_has_the_diagonal_and_tells_inside_from_outside() -> None:
    (found,) = calibrations([SKILL])
    diagonal, inside, outside = draw_calibration(found).data
    assert (diagonal.x, diagonal.y) == ((8, 11), (8, 11))
    assert (inside.x, inside.y, inside.customdata) == ((10,), (9,), (3,))
    assert (outside.x, outside.y, outside.customdata) == ((8,), (11,), (5,))
    assert inside.marker.symbol != outside.marker.symbol
    assert (inside.error_y.arrayminus, inside.error_y.array) == ((2,), (3,))
    assert "90 % interval 7 ppl to 12 ppl" in inside.hovertext[0]


def test_far_apart_values_are_seen_on_logarithmic_axes() -> None:
    far = Foretold(6, measured=100.0, expected=90.0, low=70.0, high=120.0)
    (found,) = calibrations([Skill("perplexity", 2, 0.4, 1.0, (INSIDE, far))])
    assert found.logarithmic
    assert draw_calibration(found).layout.yaxis.type == "log"


def test_an_interval_below_zero_keeps_the_axes_linear() -> None:
    far = Foretold(6, measured=100.0, expected=90.0, low=-7.0, high=120.0)
    (found,) = calibrations([Skill("perplexity", 2, 0.4, 1.0, (INSIDE, far))])
    assert not found.logarithmic
    assert draw_calibration(found).layout.xaxis.type == "linear"


def test_a_model_judged_without_keeping_what_it_foretold_has_words_only() -> None:
    (found,) = calibrations([Skill("perplexity", 12, 0.2, 11 / 12)])
    assert "11 of 12 trials" in found.words
    assert NOT_KEPT in draw_calibration(found).layout.annotations[0].text


def test_twelve_models_fit_on_one_page_and_it_says_what_is_left_out() -> None:
    many = tuple(Foretold(n, 10.0, 9.0, 7.0, 12.0) for n in range(256))
    found = calibrations([Skill("perplexity", 300, 0.2, 1.0, many)] * 12)
    assert sum(len(one.points) for one in found) <= 2000
    assert found[0].points[-1].trial == 255
    assert found[0].shown == f"perplexity: {len(found[0].points)} of 300 trials are drawn."
    assert calibrations([SKILL])[0].shown == ""


def test_the_figure_is_json() -> None:
    assert json.loads(draw_calibration(calibrations([SKILL])[0]).to_json())["data"]
