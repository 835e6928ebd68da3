"""How far a matrix is from low rank, as numbers to train against. Plain functions on tensors, in float64.

Letters: O output features, I input features. W has shape (O, I), singular values s_1 >= s_2 >= ...

None of them changes with the scale of W, so they can only move energy between directions, which weight
decay cannot do. All are smallest for a matrix of rank one::

                     rank one    n equal singular values
    concentration    0           1 - 1/n
    stable rank      1           n
    nuclear norm     1           sqrt(n)

They are zero, with a gradient of zero, for a matrix of zeros, and expect finite weights.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_ROUNDS = 32
"""Of the power iteration, each a product with W and one with W'. With s_2 at 90 % of s_1, s_1 comes out a
part in 10^5 too small at worst; closer by, a part in 100: then either direction serves."""
_START = 0
"""Seed of the vector that the power iteration starts from: random, so that it misses no direction."""
_LEAST = torch.finfo(torch.float64).tiny
_NOISE = 1e-7
"""Singular values below this share of the largest are lost in the rounding of W'W."""


@dataclass(frozen=True)
class Regulariser:
    """A measure of W and its largest value, so that one weight suits every measure and width."""

    measure: Callable[[Tensor], Tensor]
    """From W (O, I) to a scalar."""
    flat: Callable[[int], float]
    """From n to the measure of n equal singular values, the most that rank n can have."""

    def share(self, weight_OI: Tensor) -> Tensor:
        """Return the measure of W as a share of what it would be with a flat spectrum, in [0, 1]."""
        return self.measure(weight_OI) / self.flat(min(weight_OI.shape))


def spectral_concentration(weight_OI: Tensor) -> Tensor:
    """Return 1 - tr((W'W)^2) / tr(W'W)^2 = 1 - sum(s^4) / sum(s^2)^2, a scalar in [0, 1).

    The chance that two draws from the directions of W, each with probability s^2 / sum(s^2), differ: one
    minus their inverse participation ratio. Needs the smaller of WW' and W'W, and no decomposition.
    """
    W = _wide(weight_OI)
    gram = W @ W.T
    energy = gram.trace().square()
    return (energy - gram.square().sum()) / energy.clamp(min=_LEAST)


def stable_rank(weight_OI: Tensor) -> Tensor:
    """Return ||W||_F^2 / ||W||_2^2 = sum(s^2) / s_1^2, a scalar from 1 to the rank.

    The gradient of s_1 = u'Wv is uv', so the leading pair may be found without a gradient.
    Source: Sanyal, Torr and Dokania 2020, arXiv:1906.04659.
    """
    W = weight_OI.double()
    u, v = leading_pair(W.detach())
    largest = u @ W @ v
    return W.square().sum() / largest.square().clamp(min=_LEAST)


def nuclear_norm(weight_OI: Tensor) -> Tensor:
    """Return ||W||_* / ||W||_F = sum(s) / sqrt(sum(s^2)), a scalar from 1 to the root of the rank.

    With W = USV' the nuclear norm is <UV', W>, and UV' is its gradient too: it may be found without one.
    Source: Recht, Fazel and Parrilo 2010, arXiv:0706.4138 (the convex envelope of the rank).
    """
    W = _wide(weight_OI)
    return (polar_factor(W.detach()) * W).sum() / W.square().sum().clamp(min=_LEAST).sqrt()


CONCENTRATION = Regulariser(spectral_concentration, lambda n: 1 - 1 / n)
STABLE_RANK = Regulariser(stable_rank, float)
NUCLEAR_NORM = Regulariser(nuclear_norm, math.sqrt)


@torch.no_grad()
def leading_pair(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit vectors u (O,) and v (I,) with u'Wv = s_1, by power iteration; zeros if W is zero."""
    generator = torch.Generator().manual_seed(_START)
    drawn = torch.randn(weight_OI.shape[1], generator=generator, dtype=torch.float64)
    v = drawn.to(weight_OI.device)
    for _ in range(_ROUNDS):
        u = _unit(weight_OI @ v)
        v = _unit(weight_OI.T @ u)
    return _unit(weight_OI @ v), v


@torch.no_grad()
def polar_factor(weight_OI: Tensor) -> Tensor:
    """Return UV' of W = USV', for O <= I; directions in which W is zero are left out.

    From the eigenvectors of WW', which take a third of the time of an SVD.
    """
    values, vectors = torch.linalg.eigh(weight_OI @ weight_OI.T)  # values rise
    alive = values > _NOISE**2 * values[-1].clamp(min=_LEAST)
    inverse = torch.where(alive, values, 1.0).rsqrt() * alive
    found: Tensor = (vectors * inverse) @ (vectors.T @ weight_OI)
    return found


def _wide(weight_OI: Tensor) -> Tensor:
    """Return W or W' in float64, whichever has no more rows than columns."""
    rows, columns = weight_OI.shape
    return (weight_OI if rows <= columns else weight_OI.T).double()


def _unit(vector: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(vector)
    return vector / norm.clamp(min=_LEAST)
