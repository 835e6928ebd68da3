"""What runs of one search attain: the front that so many of them reach.

A point is attained by a run that has a point at least as good in both losses. The empirical attainment
surface of k of n runs is the edge of what k or more of them attain [Fonseca1996]_; those of a quarter, a
half and three quarters of the runs are to fronts what quartiles are to numbers. By moocore [Fonseca2011]_.

.. [Fonseca1996] Fonseca, Fleming. On the performance assessment and comparison of stochastic multiobjective
   optimizers. PPSN IV, 1996.
.. [Fonseca2011] Fonseca, Guerreiro, Lopez-Ibanez, Paquete. On the computation of the empirical attainment
   function. EMO 2011.
"""

import math
from collections.abc import Mapping, Sequence

import moocore
import numpy as np

from hpo.pareto import Array

FEWEST = 3
"""Runs below which there are no quartiles to speak of."""

PERCENTS = (25, 50, 75)


def attainment(fronts: Sequence[Array], percents: Sequence[int] = PERCENTS) -> Mapping[int, Array]:
    """Return percent of the runs -> the corners, (K, 2), of the surface that at least so many attain.

    `fronts`: a run each, (N, 2) losses, smaller is better; a run without points attains nothing, but counts.
    The corners are in order of the first loss; there are none where too few runs have points.

    Raises:
        ValueError: there are fewer than `FEWEST` runs, or a percentage is not above 0 and at most 100.
    """
    if len(fronts) < FEWEST:
        raise ValueError(f"{len(fronts)} runs have no attainment bands, at least {FEWEST} have")
    if not all(0 < percent <= 100 for percent in percents):
        raise ValueError(f"the percentages are {list(percents)}; each must be above 0 and at most 100")
    known = [front for front in fronts if len(front)]
    levels = {percent: math.ceil(percent * len(fronts) / 100) for percent in percents}
    reached = sorted({level for level in levels.values() if level <= len(known)})
    surfaces: dict[int, Array] = {level: np.empty((0, 2)) for level in levels.values()}
    if reached:
        points = np.concatenate(known)
        sets = np.repeat(np.arange(len(known)), [len(front) for front in known])
        # Half a run below, so that no rounding asks for one run more.
        asked = [100 * (level - 0.5) / len(known) for level in reached]
        found = moocore.eaf(points, sets, percentiles=asked)
        for level, percent in zip(reached, asked, strict=True):
            corners = found[np.isclose(found[:, 2], percent), :2]
            surfaces[level] = corners[np.argsort(corners[:, 0])]
    return {percent: surfaces[level] for percent, level in levels.items()}
