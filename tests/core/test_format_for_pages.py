import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo import format as shown


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "bytes", "0 bytes"),
        (1023, "bytes", "1,023 bytes"),
        (1024, "bytes", "1 KiB"),
        (1_739_264, "bytes", "1.659 MiB"),
        (3 * 2**30, "bytes", "3 GiB"),
        (434_816, "parameters", "434.8 k parameters"),
        (7_000_000_000, "parameters", "7 G parameters"),
        (401_408, "MACs per token", "401.4 k MACs per token"),
        (0.05, "ms", "50 µs"),
        (3.21, "ms per token", "3.21 ms per token"),
        (12_000, "ms", "12 s"),
        (4.71234, "ppl", "4.712 ppl"),
        (0.5, "x dense", "0.5 × dense"),
        (-2.5, "nats per token", "-2.5 nats per token"),
    ],
)
def test_values_have_a_unit_and_four_digits(value: float, unit: str, text: str) -> None:
    assert shown.value_text(value, unit) == text


@pytest.mark.parametrize(
    ("value", "spread", "text"),
    [(3.2149, 0.0512, "3.215 ± 0.051 ms"), (3.2149, 1.26, "3.2 ± 1.3 ms"), (3.2149, 0.0, "3.215 ms")],
)
def test_a_value_has_as_many_places_as_its_spread(value: float, spread: float, text: str) -> None:
    assert shown.spread_text(value, spread, "ms") == text


@given(st.floats(allow_nan=True, allow_infinity=True), st.integers(1, 6))
def test_every_float_can_be_shown(value: float, digits: int) -> None:
    assert shown.number_text(value, digits)


@given(st.floats(1e-3, 1e6))
def test_a_number_reads_back_to_four_digits(value: float) -> None:
    assert float(shown.number_text(value).replace(",", "")) == pytest.approx(value, rel=5.1e-4)


@given(st.floats(1e-6, 1e12), st.sampled_from(["bytes", "parameters", "ms", "mJ per token", "ppl"]))
def test_a_scale_keeps_the_value(value: float, unit: str) -> None:
    scale = shown.scale_for(unit, value)
    assert scale.divisor > 0
    assert scale.unit.endswith(unit.partition(" ")[2])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "0.5 s"),
        (59.94, "59.9 s"),
        (61, "1 min 1 s"),
        (120, "2 min"),
        (3600, "1 h"),
        (9000, "2 h 30 min"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert shown.duration_text(seconds) == text


def test_a_time_is_in_utc_and_a_missing_one_a_dash() -> None:
    assert shown.time_text(1_790_000_000.0) == "2026-09-21 14:13:20 UTC"
    assert shown.time_text(None) == "–"


def test_plotly_tags_are_escaped_and_quotes_left_alone() -> None:
    assert shown.escaped("<b>'R&D'</b>") == "&lt;b&gt;'R&amp;D'&lt;/b&gt;"


def test_one_is_singular() -> None:
    assert [shown.count_text(n, "trial") for n in (0, 1, 2)] == ["0 trials", "1 trial", "2 trials"]
