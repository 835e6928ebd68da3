"""One small whole number a layer, in a word: how many steps more, or less, it has than its rule gives it.

Letters: L layers.
"""

import numpy as np
from pydantic import Field, field_validator

from hpo.compress.budget import Ints
from hpo.compress.recipe import Knobs
from hpo.errors import Unsupported

LARGEST = 12
"""Steps that a layer may be shifted, up or down."""


class ShiftKnobs(Knobs):
    """Of methods that give each layer something of its own."""

    shift: str = Field(default="", max_length=1 << 14)
    """Layer by layer, in the model's order: steps up (positive) or down from what the other knobs give, as
    in "0,1,-1,0". A rank grows by a tenth a step before all are fitted to `keep_ratio`; bits go to the next
    number that there is; of a sparsity 0.02 is taken. None, or zeros alone, leaves all as it is."""

    @field_validator("shift")
    @classmethod
    def _whole_numbers(cls, text: str) -> str:
        try:
            parsed(text)
        except Unsupported as error:
            raise ValueError(f"{error.message}; {error.hint}") from None
        return text

    @property
    def is_shifted(self) -> bool:
        """Whether any layer is."""
        return any(parsed(self.shift))

    def steps(self, layers: int) -> Ints:
        """Return the steps of each of so many layers, (L,).

        Raises:
            Unsupported: the shift is of another number of layers.
        """
        found = parsed(self.shift) or (0,) * layers
        if len(found) != layers:
            raise Unsupported(
                f"the shift has {len(found)} numbers for {layers} layers",
                "give one for each linear layer that is compressed, in the model's order, or none at all",
            )
        return np.array(found, dtype=np.int64)


def parsed(text: str) -> tuple[int, ...]:
    """Return the numbers of a shift; none for an empty one.

    Raises:
        Unsupported: a part of it is no whole number, or too large.
    """
    found = []
    for place, part in enumerate(text.split(",") if text else ()):
        digits = part.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()) or not -LARGEST <= int(part) <= LARGEST:
            raise Unsupported(
                f"number {place} of the shift is {part[:20]!r}",
                f"allowed: whole numbers from {-LARGEST} to {LARGEST} with commas between, such as 0,1,-1,0",
            )
        found.append(int(part))
    return tuple(found)


def written(steps_L: Ints) -> str:
    """Return the word that says these steps; empty where all are 0."""
    return ",".join(map(str, steps_L.tolist())) if steps_L.any() else ""
