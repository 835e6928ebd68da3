"""SqueezeLLM: a table of values for each row, fitted to what the loss minds, some weights kept as they are.

Letters: O output features (rows), I input features (columns), K values of a row's table.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from hpo.compress.kmeans_math import nearest, row_means
from hpo.compress.layers.packed import pack
from hpo.compress.layers.tables import ASIDE, Tabled
from hpo.compress.quantize import Quantize, QuantizeKnobs
from hpo.compress.quantizer import Quantizer
from hpo.compress.recipe import Knobs
from hpo.compress.rounding import check
from hpo.compress.row_tables import RowTables
from hpo.compress.svd_math import finite


class SqueezeLlmKnobs(QuantizeKnobs):
    """The tables, and what stays outside them."""

    bits: Literal[2, 3, 4] = 4
    outliers: float = Field(default=0.004, ge=0, le=0.1)
    """Share of a layer's weights, the largest, that are kept in float16 with their places."""
    sensitive: float = Field(default=0.0005, ge=0, le=0.1)
    """Share of those kept beside them, the ones whose rounding would change the layer's outputs most."""


@dataclass(frozen=True)
class SqueezeLlmQuantizer:
    """Weighted k-means of every row.

    The paper weighs each weight by its Fisher information. This takes the mean square of the input that the
    weight reads, the diagonal of the Gram matrix, which needs no backward pass. On two small models, with
    outliers and without, perplexities with Fisher information were 1.1 % lower to 0.2 % higher at 3 and 4
    bits, and 0.5 % lower to 20 % higher at 2; with equal weights 0.1 to 3 % higher, and 3 to 12 % at 2 bits.
    Without a Gram matrix all weights count alike.
    """

    form: RowTables
    key: ClassVar[str] = "squeezellm-"
    needs_gram: ClassVar[bool] = True

    @property
    def format(self) -> RowTables:
        return self.form

    @property
    def noise(self) -> float:
        """Measured on Gaussian weights."""
        return {2: 0.34, 3: 0.18, 4: 0.09}[self.form.bits]

    def quantise(self, weight_OI: Tensor, gram_II: Tensor | None = None) -> Tabled:
        """Return the weight by tables, and the weights set aside.

        Raises:
            NonFinite: the weight or the Gram matrix holds NaN or infinity.
            Unsupported: a weight is beyond float16, in which tables are kept.
        """
        check(weight_OI)
        weight = weight_OI.double()
        costs = torch.ones_like(weight)
        if gram_II is not None:
            gram = finite(gram_II, "the Gram matrix of a layer's inputs")
            costs = gram.diagonal().double().clamp(min=0).expand_as(weight)
        is_aside = set_aside(weight, costs, self.form)
        tables_OK = fitted_tables(weight, costs.masked_fill(is_aside, 0.0), self.form.bits)
        codes = pack(nearest(weight, tables_OK.double()).to(torch.uint8), self.form.bits)
        size = self.form.places(*weight.shape)
        return Tabled(
            codes,
            tables_OK.view(torch.int16),
            None if size is None else ASIDE[size["store"]].of(is_aside, size),
            None if size is None else weight[is_aside].half().view(torch.int16),
            columns=weight.shape[1],
        )


def fitted_tables(weight_OI: Tensor, costs_OI: Tensor, bits: int) -> Tensor:
    """Return each row's values, rising, (O, K) float16; costs say what each weight's squared error counts."""
    return row_means(weight_OI, costs_OI, 2**bits).half()


def set_aside(weight_OI: Tensor, costs_OI: Tensor, form: RowTables) -> Tensor:
    """Return which weights are set aside, (O, I) bool: the largest, and of the others those that tables would
    hold worst. Of equal ones the first."""
    outliers, sensitive = form.aside(*weight_OI.shape)
    is_aside = torch.zeros(weight_OI.numel(), dtype=torch.bool, device=weight_OI.device)
    is_aside[_highest(weight_OI.abs(), outliers)] = True
    if sensitive:
        among = is_aside.view_as(weight_OI)
        tables = fitted_tables(weight_OI, costs_OI.masked_fill(among, 0.0), form.bits).double()
        lost = weight_OI - tables.gather(1, nearest(weight_OI, tables))
        is_aside[_highest((costs_OI * lost.square()).masked_fill(among, -1.0), sensitive)] = True
    return is_aside.view_as(weight_OI)


def _highest(scores_OI: Tensor, count: int) -> Tensor:
    return scores_OI.flatten().argsort(descending=True, stable=True)[:count]


class SqueezeLlm(Quantize):
    """Values of each row by weighted k-means, outliers and the most sensitive weights kept beside them.

    Source: SqueezeLLM, Kim et al. 2023, arXiv:2306.07629.
    """

    summary: ClassVar[str] = "a table of values for each row by weighted k-means, outliers aside (SqueezeLLM)"
    paper: ClassVar[str] = "SqueezeLLM, Kim et al. 2023, arXiv:2306.07629"
    knob_type: ClassVar[type[Knobs]] = SqueezeLlmKnobs

    def quantizer(self, knobs: Knobs) -> Quantizer:
        assert isinstance(knobs, SqueezeLlmKnobs)
        return SqueezeLlmQuantizer(RowTables(knobs.bits, knobs.outliers, knobs.sensitive))
