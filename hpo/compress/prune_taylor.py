"""LLM-Pruner: heads and MLP units that the loss minds least, by its gradients."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from hpo.compress.prune import PruneItems
from hpo.compress.prune_knobs import PruneKnobs
from hpo.compress.prune_scores import Metric
from hpo.compress.recipe import Knobs
from hpo.compress.taylor import TaylorOrder
from hpo.space import Value


class LlmPrunerKnobs(PruneKnobs):
    """As for the others; the paper leaves the first and the last blocks as they are (`protect_first`,
    `protect_last`)."""

    order: TaylorOrder = "first"
    """Of the Taylor expansion: |g w|, or |g w - F w^2 / 2| with the Fisher information for the curvature."""


class LlmPruner(PruneItems):
    """Removes dependency groups by the expected rise of the loss on calibration text, weight by weight,
    summed over a group: all weights of the rows and columns that go with a head or unit, in every layer it
    runs through. Biases do not count. With `structure: global`, groups compare by what each of their weights
    is worth.

    Source: LLM-Pruner, Ma et al. 2023, arXiv:2305.11627.
    """

    summary: ClassVar[str] = "remove heads and MLP units whose weights the loss minds least, by gradients"
    paper: ClassVar[str] = "LLM-Pruner, arXiv:2305.11627"
    knob_type: ClassVar[type[Knobs]] = LlmPrunerKnobs

    def metrics(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Metric, ...]:
        orders = knob_values["order"]
        found: tuple[tuple[str, Metric], ...] = (("first", "taylor_first"), ("second", "taylor_second"))
        return tuple(metric for order, metric in found if order in orders)
