"""Numbers, times and names as text: hand-worked."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.format import (
    Scale,
    count_text,
    duration_text,
    escaped,
    number_text,
    percent_text,
    scale_for,
    spread_text,
    time_text,
    value_text,
    words,
)
from hpo.metric import METRICS


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (12.3456, "12.35"),
        (-12.3456, "-12.35"),
        (123456.7, "123,457"),
        (9999.99, "10,000"),
        (0.00012345, "0.0001234"),
        (0.00001, "1.000e-05"),
        (1e7, "1.000e+07"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_a_number_has_four_significant_digits_and_no_idle_zeros(value: float, text: str) -> None:
    assert number_text(value) == text


@given(st.floats(1e-4, 9.9e6))
def test_a_number_as_text_is_within_half_of_its_last_digit(value: float) -> None:
    shown = float(number_text(value).replace(",", ""))
    assert math.isclose(shown, value, rel_tol=5.1e-4)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1023, "bytes", "1,023 bytes"),
        (1024, "bytes", "1 KiB"),
        (1_740_000, "bytes", "1.659 MiB"),
        (3 * 2**40, "bytes", "3 TiB"),
        (999, "parameters", "999 parameters"),
        (70e9, "parameters", "70 G parameters"),
        (2.5e12, "MACs per token", "2.5 T MACs per token"),
        (0.25, "ms", "0.25 ms"),
        (0.0001, "ms", "0.1 µs"),
        (1500, "ms per token", "1,500 ms per token"),
        (2000, "mJ per token", "2,000 mJ per token"),
        (12.3456, "ppl", "12.35 ppl"),
        (0.5, "x dense", "0.5 × dense"),
        (0.5, "", "0.5"),
        (-2048, "bytes", "-2 KiB"),
    ],
)
def test_a_value_is_shown_in_the_largest_unit_it_fills(value: float, unit: str, text: str) -> None:
    assert value_text(value, unit) == text


@pytest.mark.parametrize("unit", sorted({found.unit for found in METRICS.values()}))
def test_every_metrics_unit_has_a_scale_that_keeps_small_values_as_they_are(unit: str) -> None:
    scale = scale_for(unit, 1.0)
    assert scale.divisor == 1.0
    assert scale.unit == unit.replace("x ", "× ")


def test_a_scale_that_divides_by_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="divides by 0"):
        Scale(0.0, "ms")


@pytest.mark.parametrize(
    ("value", "spread", "unit", "text"),
    [
        (100.0, 1.5, "ms", "100.0 ± 1.5 ms"),
        (100.04, 0.25, "ms", "100.04 ± 0.25 ms"),
        (2000.0, 120.0, "ms", "2,000 ± 120 ms"),
        (123.4, 56.0, "ppl", "123 ± 56 ppl"),
        (12.5, 0.0, "ppl", "12.5 ppl"),
        (12.5, 1e-30, "ppl", "12.500000000 ± 0.000000000 ppl"),
    ],
)
def test_a_spread_has_two_digits_and_its_value_as_many_places(
    value: float, spread: float, unit: str, text: str
) -> None:
    assert spread_text(value, spread, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (1.234, "1.23 s"),
        (59.0, "59 s"),
        (60.0, "1 min"),
        (61.4, "1 min 1 s"),
        (3599.7, "1 h"),
        (7322.0, "2 h 2 min"),
        (360_000.0, "100 h"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_time_is_told_in_utc_and_a_missing_one_is_a_dash() -> None:
    assert time_text(1_800_000_000.0) == "2027-01-15 08:00:00 UTC"
    assert time_text(None) == "–"


def test_small_texts() -> None:
    assert percent_text(0.1234) == "12.3 %"
    assert words("out_of_memory") == "out of memory"
    assert count_text(1, "trial") == "1 trial"
    assert count_text(0, "trial") == "0 trials"
    assert count_text(1234, "trial") == "1,234 trials"


def test_text_with_marks_that_plotly_reads_is_escaped_once() -> None:
    assert escaped("<b>&lt;") == "&lt;b&gt;&amp;lt;"
