"""Pareto mathematics on plain arrays. Smaller is better everywhere in this module.

Dimension letters: N points, M objectives. The heavy lifting is moocore's (exact hypervolume by
dimension sweep / WFG, Fonseca et al. 2006, While et al. 2012).
"""

from dataclasses import dataclass
from typing import cast

import moocore
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def nondominated(losses_NM: Array) -> Mask:
    """Return which rows no other row dominates, shape (N,). Equal rows all stay; NaN rows never do."""
    complete = np.isfinite(losses_NM).all(axis=1)
    mask = np.zeros(len(losses_NM), dtype=bool)
    if complete.any():
        mask[complete] = moocore.is_nondominated(losses_NM[complete], keep_weakly=True)
    return mask


@dataclass(frozen=True)
class Frame:
    """The box in which fronts of one study are compared: an ideal corner and a reference corner.

    A point on or beyond the reference in any objective adds no hypervolume.
    """

    ideal: tuple[float, ...]
    reference: tuple[float, ...]

    def __post_init__(self) -> None:
        for low, high in zip(self.ideal, self.reference, strict=True):
            if not -np.inf < low < high < np.inf:
                raise ValueError(
                    f"the reference {self.reference} must lie above the ideal {self.ideal}, both finite"
                )

    def normalised(self, losses_NM: Array) -> Array:
        """Map ideal to 0 and reference to 1, per objective."""
        ideal, reference = np.asarray(self.ideal), np.asarray(self.reference)
        return cast(Array, (np.asarray(losses_NM, dtype=float) - ideal) / (reference - ideal))

    def hypervolume(self, losses_NM: Array) -> float:
        """Return the share of the box that the points dominate, in [0, 1]."""
        points = self.normalised(losses_NM)
        points = points[np.isfinite(points).all(axis=1)]
        points = np.maximum(points[(points < 1).all(axis=1)], 0.0)
        if len(points) == 0:
            return 0.0
        return float(moocore.hypervolume(points, ref=np.ones(points.shape[1])))

    def hypervolumes(self, losses_NM: Array) -> Array:
        """Return the hypervolume after each point in turn, shape (N,); a point that adds none is free."""
        values = np.zeros(len(losses_NM))
        points = self.normalised(losses_NM)
        front = np.empty((0, points.shape[1]))
        current = 0.0
        for i, raw in enumerate(points):
            useful = np.isfinite(raw).all() and (raw < 1).all()
            point = np.maximum(raw, 0.0)
            if useful and not (front <= point).all(axis=1).any():
                front = np.vstack([front[~(front >= point).all(axis=1)], point])
                current = float(moocore.hypervolume(front, ref=np.ones(front.shape[1])))
            values[i] = current
        return values


def knee(losses_NM: Array) -> int:
    """Return the index of the point nearest, in L2, to the ideal of the set after min-max scaling.

    Scaling is over the points given, so pass a front. Ties go to the first.

    Raises:
        ValueError: there are no points.
    """
    if len(losses_NM) == 0:
        raise ValueError("a front without points has no knee")
    low, high = losses_NM.min(axis=0), losses_NM.max(axis=0)
    scaled = (losses_NM - low) / np.where(high > low, high - low, 1.0)
    return int(np.argmin(np.linalg.norm(scaled, axis=1)))
