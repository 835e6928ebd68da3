"""Sweeps over the cores of a matrix product operator that fit it to a layer's inputs. In float64.

TT-SVD gives cores near W, all directions of the inputs alike. What counts is the layer's output, hence::

    f(W') = tr (W - W') G (W - W')'    G = sum of x x' over a calibration text, plus the stated ridge

As a function of one core, the others fixed, f is quadratic: a least squares problem. G couples all in
sites, so unlike in DMRG no gauge makes the surroundings of a core the identity; the normal equations are
solved exactly where they are small, and else lowered by some conjugate gradient steps, each of two
contractions and one product with G. No fit of a core raises f.

The first sweep is one of pairs, as in DMRG: two neighbouring cores are merged to one, which is fitted, cut
back to its bond in the gauge that G suggests, and both halves are fitted again. It is undone where
the cut lost more than it gained. Later sweeps fit core after core.

Letters: O output features, I input features. A core is (a, o, i, b): bond, out site, in site, next bond.
To its left are the out and in sites p and k, to its right q and m: O = p o q, I = k i m.

Sources: White 1992 (Phys. Rev. Lett. 69, 2863) for two-site sweeps; Holtz, Rohwedder, Schneider 2012
(SIAM J. Sci. Comput. 34) for alternating least squares on tensor trains.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hpo.compress.mpo_math import balanced_cores
from hpo.compress.svd_math import factor, finite, ridged

_STEPS = 16
"""Conjugate gradient steps for one core."""
_LITTLE = 1e-3
"""They end when one lowers f by less than this share."""
_DIRECT = 256
"""Rows of the largest normal equations that are solved directly."""
_ROOM = 1 << 25
"""Numbers in the largest matrix that setting them up may take (256 MB)."""


@dataclass(frozen=True)
class Swept:
    """Cores after some sweeps."""

    cores: list[Tensor]
    """Of equal norms, float64."""
    errors: tuple[float, ...]
    """Relative errors sqrt(f(W') / f(0)), before the first sweep and after each; they never rise."""


def swept(
    weight_OI: Tensor, gram_II: Tensor, cores: Sequence[Tensor], sweeps: int, name: str = "the weight"
) -> Swept:
    """Lower the weighted error of `cores` by sweeps; their shapes stay.

    Every bond must be one that its cores can carry: at most what is to its left, and to its right.

    Raises:
        NonFinite: the weight or the Gram matrix holds NaN or infinity; says which, by `name`.
    """
    weight = finite(weight_OI.double(), name)
    gram = ridged(finite(gram_II.double(), f"the Gram matrix of the inputs of {name}"))
    chain = _Chain(weight, gram, [core.double() for core in cores])
    errors = [chain.error]
    for sweep in range(sweeps):
        if sweep == 0:
            chain.fit_pairs()
        else:
            chain.fit_each()
        errors.append(chain.error)
    if errors[-1] >= errors[0]:  # rounding alone moved the cores
        return Swept(balanced_cores([core.double() for core in cores]), (errors[0],) * len(errors))
    return Swept(balanced_cores(chain.cores), tuple(errors))


def weighted_error(weight_OI: Tensor, gram_II: Tensor, cores: Sequence[Tensor]) -> float:
    """Return sqrt(f(W') / f(0)) for the W' of some cores; see above."""
    return _Chain(weight_OI.double(), ridged(gram_II.double()), [core.double() for core in cores]).error


@dataclass(frozen=True)
class Surroundings:
    """What the other cores of an operator make of one: W' is linear in it."""

    left_pka: Tensor
    right_bqm: Tensor

    def placed(self, core_aoib: Tensor) -> Tensor:
        """Return W', (O, I)."""
        (p, k, a), (b, q, m), (_, o, i, _) = self.left_pka.shape, self.right_bqm.shape, core_aoib.shape
        whole = self.left_pka.reshape(p * k, a) @ core_aoib.reshape(a, o * i * b)
        whole = whole.reshape(p * k * o * i, b) @ self.right_bqm.reshape(b, q * m)
        return whole.reshape(p, k, o, i, q, m).permute(0, 2, 4, 1, 3, 5).reshape(p * o * q, k * i * m)

    def gathered(self, matrix_OI: Tensor, o: int, i: int) -> Tensor:
        """Return the adjoint of `placed` on a matrix: what of it a core (a, o, i, b) sees."""
        (p, k, a), (b, q, m) = self.left_pka.shape, self.right_bqm.shape
        parts = matrix_OI.reshape(p, o, q, k, i, m).permute(0, 3, 1, 4, 2, 5).reshape(p * k * o * i, q * m)
        seen = (parts @ self.right_bqm.reshape(b, q * m).T).reshape(p * k, o * i * b)
        return (self.left_pka.reshape(p * k, a).T @ seen).reshape(a, o, i, b)


class _Chain:
    """Cores under way, and f of what they make."""

    def __init__(self, weight_OI: Tensor, gram_II: Tensor, cores: list[Tensor]) -> None:
        self.weight = weight_OI
        self.gram = gram_II
        self.cores = cores
        self._weighted = weight_OI @ gram_II
        self._energy = float((self._weighted * weight_OI).sum())
        self.lost = self._measured()

    @property
    def error(self) -> float:
        return math.sqrt(max(self.lost, 0.0) / self._energy) if self._energy > 0 else 0.0

    def _measured(self) -> float:
        difference = self.weight - _whole(self.cores)
        return float(((difference @ self.gram) * difference).sum())

    def fit_each(self) -> None:
        """Fit every core but the last from right to left, then every one but the first back."""
        last = len(self.cores) - 1
        for k in (*range(last - 1, -1, -1), *range(1, last + 1)):
            self._fit(k)

    def fit_pairs(self) -> None:
        """Fit neighbouring cores together, from left to right."""
        for k in range(len(self.cores) - 1):
            before, lost = list(self.cores), self.lost
            self.cores[k : k + 2] = self._split(k)
            self.lost = self._measured()
            self._fit(k)
            self._fit(k + 1)
            if self.lost > lost:
                self.cores, self.lost = before, lost
                self._fit(k)
                self._fit(k + 1)

    def _fit(self, k: int) -> None:
        """Solve for one core, the others fixed; keep it if f falls."""
        self.cores = centred(self.cores, k)
        around = surroundings(self.cores, k, k + 1)
        core, lost = self._solved(around, self.cores[k])
        if lost < self.lost:
            self.cores[k], self.lost = core, lost

    def _solved(self, around: Surroundings, core: Tensor) -> tuple[Tensor, float]:
        """Return the core that makes f least, and f."""
        _, o, i, _ = core.shape

        def normal(x: Tensor) -> Tensor:
            return around.gathered(around.placed(x) @ self.gram, x.shape[1], i)

        target = around.gathered(self._weighted, o, i)
        outs = around.left_pka.shape[0] * around.right_bqm.shape[1]
        rows = core.numel() // o
        if rows <= _DIRECT and outs * rows * len(self.gram) <= _ROOM:
            direct = _solved_directly(normal, target)
            if direct is not None:
                residual = target - normal(direct)
                return direct, self._energy - float(((target + residual) * direct).sum())
        return _solved_stepwise(normal, target, core, self._energy)

    def _split(self, k: int) -> tuple[Tensor, Tensor]:
        """Merge cores k and k+1, fit what they make, and cut it to their bond."""
        self.cores = centred(self.cores, k)
        first, second = self.cores[k], self.cores[k + 1]
        (a, o, i, bond), (_, p, j, b) = first.shape, second.shape
        around = surroundings(self.cores, k, k + 2)
        if len(self.cores) == 2:  # nothing around: the best that both can make is W
            both = self.weight.reshape(1, o, p, i, j, 1)
        else:
            start = torch.tensordot(first, second, dims=1).transpose(2, 3).reshape(a, o * p, i * j, b)
            both = self._solved(around, start)[0].reshape(a, o, p, i, j, b)
        (to_left, from_left), (to_right, from_right) = gauges(around, self.gram, i, j)
        scaled_uopv = torch.einsum(
            "aiu,aopijb,jbv->uopv", to_left.reshape(a, i, -1), both, to_right.reshape(j, b, -1)
        )
        left, right, _ = factor(scaled_uopv.reshape(-1, p * j * b), None, bond)
        left_aoib = torch.einsum("uoc,uai->aoic", left.reshape(a * i, o, bond), from_left.reshape(-1, a, i))
        right_bpjc = torch.einsum(
            "cpv,vjb->cpjb", right.reshape(bond, p, j * b), from_right.reshape(-1, j, b)
        )
        return left_aoib, right_bpjc


def surroundings(cores: Sequence[Tensor], start: int, stop: int) -> Surroundings:
    """Contract the cores before `start`, and those from `stop` on."""
    one = cores[0].new_ones(1, 1, 1, 1)
    left, right = one, one
    for core in cores[:start]:
        left = _joined(left, core)
    for core in reversed(cores[stop:]):
        right = _joined(core, right)
    return Surroundings(left[0], right[..., 0])


def centred(cores: Sequence[Tensor], k: int) -> list[Tensor]:
    """Return cores of the same product, left-orthonormal before core k, right-orthonormal after it."""
    found = list(cores)
    for m in range(k):
        a, o, i, b = found[m].shape
        q, r = torch.linalg.qr(found[m].reshape(a * o * i, b))
        found[m], found[m + 1] = q.reshape(a, o, i, b), torch.tensordot(r, found[m + 1], dims=1)
    for m in range(len(found) - 1, k, -1):
        a, o, i, b = found[m].shape
        q, r = torch.linalg.qr(found[m].reshape(a, o * i * b).T)
        found[m], found[m - 1] = q.T.reshape(a, o, i, b), torch.tensordot(found[m - 1], r.T, dims=1)
    return found


def gauges(
    around: Surroundings, gram_II: Tensor, i: int, j: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return roots, with their inverses, of the two factors that come nearest to the metric of a pair.

    The normal equations of two merged cores act on (a, i) and (j, b) together. Their partial traces over
    one half give a metric for the other, exact where G is a Kronecker product over the sites.
    """
    left, right = around.left_pka, around.right_bqm
    (_, k, a), (b, _, m) = left.shape, right.shape
    G = gram_II.reshape(k, i, j, m, k, i, j, m)
    traced_right = torch.einsum("bqm,bqn->mn", right, right)
    traced_left = torch.einsum("pka,pla->kl", left, left)
    over_right = torch.einsum("kijmlujn,mn->kilu", G, traced_right)
    over_left = torch.einsum("kijmliwn,kl->jmwn", G, traced_left)
    left_metric = torch.einsum("pka,plc,kilu->aicu", left, left, over_right).reshape(a * i, a * i)
    right_metric = torch.einsum("bqm,cqn,jmwn->jbwc", right, right, over_left).reshape(j * b, j * b)
    return _root_and_inverse(left_metric), _root_and_inverse(right_metric)


def _root_and_inverse(metric_NN: Tensor) -> tuple[Tensor, Tensor]:
    """Return the symmetric root of a positive semidefinite matrix and its inverse, tiny eigenvalues
    raised."""
    values, vectors = torch.linalg.eigh((metric_NN + metric_NN.T) / 2)
    roots = values.clamp(min=float(values[-1].clamp(min=1e-300)) * 1e-12).sqrt()
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T


def _solved_directly(normal: Callable[[Tensor], Tensor], target: Tensor) -> Tensor | None:
    """Solve the normal equations by Cholesky; None if they are singular. The out site is a free index."""
    a, o, i, b = target.shape
    rows = a * i * b
    basis = torch.eye(rows, dtype=target.dtype, device=target.device).reshape(rows, a, i, b)
    matrix = normal(basis.permute(1, 0, 2, 3)).permute(1, 0, 2, 3).reshape(rows, rows)
    root, failed = torch.linalg.cholesky_ex((matrix + matrix.T) / 2)
    if failed:
        return None
    solved = torch.cholesky_solve(target.permute(0, 2, 3, 1).reshape(rows, o), root)
    found: Tensor = solved.reshape(a, i, b, o).permute(0, 3, 1, 2).contiguous()
    return found


def _solved_stepwise(
    normal: Callable[[Tensor], Tensor], target: Tensor, core: Tensor, energy: float
) -> tuple[Tensor, float]:
    """Lower f by conjugate gradients from `core` on; return what they come to, and f."""
    residual = target - normal(core)
    lost = energy - float(((target + residual) * core).sum())
    direction, squared = residual, float((residual * residual).sum())
    for _ in range(_STEPS):
        image = normal(direction)
        curvature = float((direction * image).sum())
        if curvature <= 0:
            break
        step = squared / curvature
        core, residual = core + step * direction, residual - step * image
        lost -= step * squared
        if step * squared < _LITTLE * lost:
            break
        before, squared = squared, float((residual * residual).sum())
        direction = residual + squared / before * direction
    return core, lost


def _joined(left: Tensor, right: Tensor) -> Tensor:
    """Contract two neighbouring cores to one."""
    (a, o, i, _), (_, p, j, b) = left.shape, right.shape
    both: Tensor = torch.tensordot(left, right, dims=1)
    return both.transpose(2, 3).reshape(a, o * p, i * j, b)


def _whole(cores: Sequence[Tensor]) -> Tensor:
    """Return W', (O, I)."""
    whole = cores[0]
    for core in cores[1:]:
        whole = _joined(whole, core)
    return whole.reshape(whole.shape[1], whole.shape[2])
