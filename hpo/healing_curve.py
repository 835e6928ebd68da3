"""How the loss fell while a compressed model was healed: a by-product of training, kept with its trial."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

Point = tuple[int, float]
"""Steps taken so far, and a loss."""


@dataclass(frozen=True)
class HealingCurve:
    """The losses of a healing over its steps, as far as training shows them anyway.

    Raises:
        ValueError: a loss is not finite, or steps do not rise from 0.
    """

    loss: str
    """What training lowers, by its name in a recipe: ``cross_entropy``, ``distil``, ``hidden``, ``local``."""
    trained: tuple[Point, ...] = ()
    """That loss, averaged over the steps since the point before; any penalty is part of it."""
    checked: tuple[Point, ...] = ()
    """Nats per token of the calibration text held out, in the order in which they were taken; step 0 is
    before the first one."""

    def __post_init__(self) -> None:
        for points in (self.trained, self.checked):
            steps = [step for step, _ in points]
            if steps != sorted(steps) or min(steps, default=0) < 0:
                raise ValueError(f"the steps of a healing rise from 0, not as in {steps}")
            if not all(math.isfinite(value) for _, value in points):
                raise ValueError("a healing curve holds finite losses only; leave the others out")

    @property
    def steps(self) -> int:
        """The last step of which something is known."""
        return max((step for step, _ in (*self.trained, *self.checked)), default=0)

    def to_mapping(self) -> dict[str, Any]:
        return {
            "loss": self.loss,
            "trained": [list(point) for point in self.trained],
            "checked": [list(point) for point in self.checked],
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        return cls(mapping["loss"], _points(mapping["trained"]), _points(mapping["checked"]))


def _points(pairs: list[list[float]]) -> tuple[Point, ...]:
    return tuple((int(step), float(value)) for step, value in pairs)
