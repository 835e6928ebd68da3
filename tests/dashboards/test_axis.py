import pytest

from dashboards.axis import axis_of, log_ticks
from hpo.trial import Objective

PERPLEXITY = Objective(metric="perplexity")
MEMORY = Objective(metric="weight_memory")


def test_an_axis_is_logarithmic_from_a_span_of_five_on() -> None:
    assert not axis_of(PERPLEXITY, [4.0, 19.9]).logarithmic
    assert axis_of(PERPLEXITY, [4.0, 20.0]).logarithmic


def test_an_axis_that_holds_zero_is_linear() -> None:
    assert not axis_of(PERPLEXITY, [0.0, 100.0]).logarithmic


def test_bytes_are_shown_in_the_unit_of_the_largest() -> None:
    axis = axis_of(MEMORY, [2**19, 2**21])
    assert axis.scale.unit == "MiB"
    assert axis.shown(2**19) == 0.5


def test_the_title_says_unit_and_which_way_is_better() -> None:
    assert axis_of(MEMORY, [2**21]).title(("←", "→")) == "weight memory [MiB]<br>← lower is better"


def test_the_title_says_that_values_are_modelled() -> None:
    axis = axis_of(Objective(metric="energy"), [1.0, 2.0], modelled=True)
    assert axis.title(("↓", "↑")) == "energy [mJ per token] (modelled)<br>↓ lower is better"


def test_a_near_limit_is_drawn_and_a_far_one_named() -> None:
    near, far = axis_of(PERPLEXITY, [4.0, 8.0], limit=10.0), axis_of(PERPLEXITY, [4.0, 8.0], limit=40.0)
    assert near.draws_limit
    assert near.high == 10.0
    assert not far.draws_limit
    assert far.high == 8.0
    assert "limit 40" in far.title(("←", "→"))
    assert "limit" not in near.title(("←", "→"))


def test_the_range_of_a_logarithmic_axis_is_in_powers_of_ten() -> None:
    layout = axis_of(PERPLEXITY, [1.0, 100.0]).layout(("←", "→"))
    assert layout["type"] == "log"
    assert layout["range"] == pytest.approx([-0.16, 2.16])
    assert layout["tickvals"] == [1, 2, 5, 10, 20, 50, 100]


def test_an_axis_with_one_value_or_none_has_a_width() -> None:
    for values in ([], [5.0], [0.0]):
        low, high = axis_of(PERPLEXITY, values).layout(("←", "→"))["range"]
        assert low < high


def test_ticks_are_finer_where_the_span_is_short() -> None:
    assert log_ticks(0.0, 1.0) == [1, 1.5, 2, 3, 5, 7, 10]
