"""FLAP: the heads and MLP units that fluctuate least are held at their mean, and removed."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from hpo.compress.prune import PruneItems
from hpo.compress.prune_knobs import PruneKnobs, Structure
from hpo.compress.prune_scores import Metric
from hpo.compress.recipe import Knobs
from hpo.space import Value


class FlapKnobs(PruneKnobs):
    """As for the others, with the paper's defaults."""

    structure: Structure = Field(default="global")
    compensate: bool = Field(default=True)
    head_scores: Literal["squared", "plain"] = "squared"
    """Channels of heads count by the square of their score, as in the authors' code, so that a head is worth
    what its largest channels are; or by the score itself, as the paper writes it. Which of the two loses less
    depends on the model: with 80 % of the weights the reference model has perplexity 5.02 or 6.10, dense
    4.65."""


class Flap(PruneItems):
    """Removes the channels whose variance, times the squared norm of the column that reads them, is lowest:
    it is the error that is left once their mean is added as a bias. Scores are standardised in each attention
    and MLP, a head's are averaged, and one threshold divides all of them.

    Output layers gain a bias where they had none. A model class without one has no dense form of it unless
    its configuration can switch biases on.

    Source: FLAP, An et al. 2023, arXiv:2312.11983.
    """

    summary: ClassVar[str] = "remove heads and MLP units that fluctuate little, their mean kept as a bias"
    paper: ClassVar[str] = "FLAP, arXiv:2312.11983"
    knob_type: ClassVar[type[Knobs]] = FlapKnobs

    def metrics(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Metric, ...]:
        found: tuple[tuple[str, Metric], ...] = (("squared", "fluctuation_squared"), ("plain", "fluctuation"))
        return tuple(metric for scores, metric in found if scores in knob_values["head_scores"])
