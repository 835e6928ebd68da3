"""How far a search's own model can be trusted."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


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

    def __post_init__(self) -> None:
        if self.trials < 1 or not self.error >= 0 or not 0 <= self.coverage <= 1:
            raise ValueError(f"{self} is no skill: trials from 1, an error from 0, a coverage from 0 to 1")

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
        return cls(**mapping)
