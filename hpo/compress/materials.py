"""What a method may use when it applies a plan."""

from dataclasses import dataclass

from torch import nn

from hpo.compress.factors import FactorStore
from hpo.models.text import Corpus


@dataclass(frozen=True)
class Materials:
    """Of one dense model and calibration text; everything `Factoriser.preparations` names is in the store."""

    store: FactorStore
    dense: nn.Module
    calibration: Corpus
    is_dense: bool = True
    """Whether the model to change is still `dense`, so that what was prepared of its layers holds; if not, an
    earlier stage or healing has changed what they read."""
