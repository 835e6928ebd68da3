"""Which share of its ranks a layer is trained with, and when. Plain functions."""

import math
from collections.abc import Sequence

import torch


def rank_at(share: float, largest: int) -> int:
    """Return the rank of a share of the largest, at least 1; a hair below a whole number is that number."""
    return max(math.ceil(share * largest - 1e-9), 1)


def parsed_shares(text: str) -> tuple[float, ...]:
    """Return the shares that a list such as ``0.5,0.75,1.0`` names, ascending.

    Raises:
        ValueError: it is empty, one is not in (0, 1], or none is 1.
    """
    shares = sorted({float(word) for word in text.split(",")})
    if not all(0 < share <= 1 for share in shares) or shares[-1] != 1:
        raise ValueError(f"shares are {text!r}; give numbers above 0 up to 1, and 1 itself: 0.5,0.75,1.0")
    return tuple(shares)


def drawn_shares(shares: Sequence[float], steps: int, seed: int) -> list[float]:
    """Return a share for each step, drawn evenly, the same again for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return [shares[int(i)] for i in torch.randint(len(shares), (steps,), generator=generator)]
