"""How far a search's own model can be trusted."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

MOST_FORETOLD = 256
"""Trials of which a skill keeps what was said of each: enough for a figure, and a few kilobytes."""


@dataclass(frozen=True)
class Foretold:
    """What a model says of a trial that it was not told of, and what the trial came to; in the metric's unit.

    Raises:
        ValueError: the interval's ends are the wrong way round.
    """

    trial: int
    measured: float
    expected: float
    """Where the model's median is."""
    low: float
    high: float
    """The ends of its 90 % interval, noise of measurement included."""

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"trial {self.trial}: an interval from {self.low:g} to {self.high:g}")


@dataclass(frozen=True)
class Skill:
    """What leaving out each trial in turn says of the model of one objective, where fronts are.

    Raises:
        ValueError: no trial was judged, the error is negative, or the coverage is no share.
    """

    metric: str
    trials: int
    """How many were judged: those within the limits, or in the study's box where there are none."""
    error: float
    """Root mean square error over the spread of the outcomes, on the model's scale: 0 is perfect, 1 no better
    than their mean."""
    coverage: float
    """Share of the outcomes inside the model's 90 % interval: 0.9 if it is as sure as it should be."""
    foretold: tuple[Foretold, ...] = ()
    """Of the trials judged, or of `MOST_FORETOLD` of them, the latest one last."""

    def __post_init__(self) -> None:
        if self.trials < 1 or not self.error >= 0 or not 0 <= self.coverage <= 1:
            given = f"trials {self.trials}, error {self.error:g}, coverage {self.coverage:g}"
            raise ValueError(f"no skill: {given}; trials from 1, an error from 0, a coverage from 0 to 1")

    @property
    def words(self) -> str:
        return (
            f"{self.metric}: error {self.error:.2f} of the spread over {self.trials} trials, "
            f"{self.coverage:.0%} of them inside its 90 % interval"
        )

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        return cls(**{**mapping, "foretold": tuple(Foretold(**one) for one in mapping.get("foretold", ()))})
