"""Numbers, times and names as text, with units and no more digits than they deserve."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

_LADDERS: dict[str, tuple[tuple[float, float, str], ...]] = {
    "bytes": (
        (0, 1, "bytes"),
        (2**10, 2**10, "KiB"),
        (2**20, 2**20, "MiB"),
        (2**30, 2**30, "GiB"),
        (2**40, 2**40, "TiB"),
    ),
    "parameters": (
        (0, 1, "parameters"),
        (1e3, 1e3, "k parameters"),
        (1e6, 1e6, "M parameters"),
        (1e9, 1e9, "G parameters"),
    ),
    "MACs": (
        (0, 1, "MACs"),
        (1e3, 1e3, "k MACs"),
        (1e6, 1e6, "M MACs"),
        (1e9, 1e9, "G MACs"),
        (1e12, 1e12, "T MACs"),
    ),
    "ms": ((0, 1e-3, "µs"), (0.1, 1, "ms"), (1e4, 1e3, "s")),
    "mJ": ((0, 1e-3, "µJ"), (0.1, 1, "mJ"), (1e4, 1e3, "J")),
}
"""First word of a unit -> what it is shown in: (from this value on, divided by this, so named), rising."""


@dataclass(frozen=True)
class Scale:
    """How a metric's values are shown: divided by `divisor`, in `unit`."""

    divisor: float
    unit: str

    def __post_init__(self) -> None:
        if not self.divisor > 0:
            raise ValueError(f"a scale divides by {self.divisor}; it must be above 0")


def scale_for(unit: str, largest: float) -> Scale:
    """Return the scale in which `largest`, a value in `unit`, has few digits before the point."""
    word, blank, rest = unit.partition(" ")
    if word == "x":
        return Scale(1.0, f"×{blank}{rest}")
    if word not in _LADDERS:
        return Scale(1.0, unit)
    _, divisor, name = [step for step in _LADDERS[word] if abs(largest) >= step[0]][-1]
    return Scale(float(divisor), name + blank + rest)


def note_text(value: float | str, digits: int = 4) -> str:
    """Return a note of a trial, words as they are."""
    return value if isinstance(value, str) else number_text(value, digits)


def number_text(value: float, digits: int = 4) -> str:
    """Return `value` with so many significant digits; whole numbers keep all before the point."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def value_text(value: float, unit: str, largest: float | None = None) -> str:
    """Return a value of a metric with its unit, e.g. ``1.659 MiB``.

    The unit is that of `largest` where it is given, so that a column of values has one unit.
    """
    scale = scale_for(unit, value if largest is None else largest)
    return f"{number_text(value / scale.divisor)} {scale.unit}".rstrip()


def spread_text(value: float, spread: float, unit: str, largest: float | None = None) -> str:
    """Return ``value ± spread unit``; the spread has two digits, the value as many places."""
    if spread <= 0:
        return value_text(value, unit, largest)
    scale = scale_for(unit, value if largest is None else largest)
    low = spread / scale.divisor
    places = min(max(0, 1 - math.floor(math.log10(low))), 9)
    return f"{value / scale.divisor:,.{places}f} ± {low:,.{places}f} {scale.unit}".rstrip()


def percent_text(share: float) -> str:
    return f"{100 * share:.1f} %"


def duration_text(seconds: float) -> str:
    """Return a length of time in its two largest units."""
    if seconds < 60:
        return f"{number_text(seconds, 3)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min" + (f" {rest} s" if rest else "")
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h" + (f" {minutes} min" if minutes else "")


def time_text(at: float | None) -> str:
    """Return a time in UTC, given in seconds since the epoch; a dash where there is none."""
    return "–" if not at else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def words(name: str) -> str:
    """Return the name of a metric or cause as words."""
    return name.replace("_", " ")


def count_text(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def escaped(text: str) -> str:
    """Return `text` so that Plotly, which reads tags in labels, shows it as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
