"""The knobs of the stage ``sparsify``."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from hpo.compress.selection import SelectionKnobs
from hpo.compress.shift import ShiftKnobs
from hpo.compress.sparse_pattern import NOfM
from hpo.compress.sparse_store import Store
from hpo.errors import Unsupported

UNSTRUCTURED = "unstructured"


class SparsifyKnobs(SelectionKnobs, ShiftKnobs):
    """How many zeros, where they may stand, and how the matrix is held then."""

    sparsity: float | None = Field(default=None, gt=0, lt=1)
    """Share of a layer's weights that become zero, to four decimals; an N:M pattern has its own."""
    pattern: str = UNSTRUCTURED
    """Zeros anywhere; or N:M, such as 2:4, 4:8 or 1:4: of each M inputs that follow one another N stay. In a
    YAML file an N:M pattern stands in quotes."""
    attention: float = Field(default=1.0, ge=0, le=10)
    """Multiplies the sparsity of attention layers; 0 leaves them as they are. With N:M 0 or 1."""
    mlp: float = Field(default=1.0, ge=0, le=10)
    """The same for MLP layers."""
    allocation: Literal["uniform", "owl"] = "uniform"
    """Of an unstructured pattern: the same sparsity in every block, or less where a block has more outliers
    (OWL, arXiv:2310.05175). The multipliers come on top."""
    spread: float = Field(default=0.08, ge=0, le=0.5)
    """Of owl: how far a block's sparsity may be from the mean, about."""
    outlier: Literal[3, 5, 7, 10] = 5
    """Of owl: so many times the block's mean makes a weight times its input's norm an outlier."""
    store: Store = "dense"
    """Held whole, which saves nothing; as the weights that stay and one bit a weight; as those and their
    places in the groups of an N:M pattern; or as compressed sparse rows. What would be no smaller is held
    whole."""

    @property
    def n_of_m(self) -> NOfM | None:
        return None if self.pattern == UNSTRUCTURED else NOfM.parsed(self.pattern)

    @property
    def is_by_row(self) -> bool:
        """Whether an unstructured pattern has the same number of zeros in every row."""
        return False

    @field_validator("pattern", mode="before")
    @classmethod
    def _pattern(cls, value: Any) -> Any:
        if isinstance(value, int):
            raise ValueError(f"{value} is no pattern: YAML reads 2:4 as a number, so write it in quotes")
        if isinstance(value, str) and value != UNSTRUCTURED:
            try:
                NOfM.parsed(value)
            except Unsupported as error:
                raise ValueError(f"{error.message}; {error.hint}") from None
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        own = self.n_of_m
        if own is None:
            if self.sparsity is None:
                raise ValueError("give sparsity, or an N:M pattern")
            if self.store == "n_m":
                raise ValueError("store: n_m is for N:M patterns; allowed here: dense, bitmap, csr")
            return self
        if self.sparsity is not None and abs(self.sparsity - own.sparsity) > 1e-4:
            raise ValueError(
                f"sparsity is {self.sparsity:g}, but {own} has {own.sparsity:g} of its own; leave one out"
            )
        if self.allocation != "uniform":
            raise ValueError(f"allocation is {self.allocation}, but {own} is the same everywhere")
        if self.is_shifted:
            raise ValueError(f"shift moves shares of zeros, but {own} is the same everywhere")
        for name, times in (("attention", self.attention), ("mlp", self.mlp)):
            if times not in (0, 1):
                raise ValueError(f"{name} is {times:g}, but with {own} it is 0 or 1")
        return self


class ComparedKnobs(SparsifyKnobs):
    """Of methods that score each weight by itself."""

    compare: Literal["matrix", "row"] = "matrix"
    """Among which weights of an unstructured pattern the smallest go: of the whole matrix, or of each row,
    which is one output."""

    @property
    def is_by_row(self) -> bool:
        return self.compare == "row"


class WandaKnobs(ComparedKnobs):
    """As of all methods that score each weight by itself."""

    compare: Literal["matrix", "row"] = "row"
    """As the paper has it. By the matrix did better on two of three small models at half zeros, and on all
    three at 70 %."""


class SparseGptKnobs(SparsifyKnobs):
    """How the weights that stay make up for the others."""

    damping: float = Field(default=0.01, gt=0, le=10)
    """Of the mean diagonal of the inputs' Gram matrix, added to its diagonal."""
    slice_columns: int = Field(default=128, ge=1, le=4096)
    """Columns whose zeros are chosen together; an N:M pattern chooses group by group."""
