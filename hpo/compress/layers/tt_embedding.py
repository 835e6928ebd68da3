"""A token embedding, and the output layer over it, as a tensor train.

Letters: V vocabulary, D width, N tokens, B everything before the last dimension of hidden states.
"""

import copy
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo.compress.layers.compressed import Compressed

_AT_ONCE = 1 << 22
"""Numbers between two cores held at once: a long prompt is worked off in parts, to spare memory."""


class TtTable(nn.Module):
    """A table (V, D) whose core k has shape (bond k, row site k, column site k, bond k+1), outer bonds 1.

    A token's place, in mixed radix with the first row site slowest, names its slice of every core; their
    product is its row. Row sites may multiply to more than V: those rows belong to no token.
    """

    def __init__(
        self, cores: Sequence[Tensor], places_V: Tensor | None, vocabulary: int, contraction: str
    ) -> None:
        """`places_V` (int32) holds each token's place where that is not its own number."""
        super().__init__()
        self.cores = nn.ParameterList([nn.Parameter(core, requires_grad=False) for core in cores])
        self.vocabulary = vocabulary
        self.contraction = contraction
        self.places: Tensor | None
        self.cached_weight: Tensor | None
        self.register_buffer("places", places_V)
        self.register_buffer("cached_weight", None, persistent=False)
        self._made_of: tuple[tuple[int, int], ...] = ()

    @property
    def width(self) -> int:
        return prod(core.shape[2] for core in self.cores)

    def look_up(self, tokens: Tensor) -> Tensor:
        """Return the rows of tokens of any shape, (..., D)."""
        if self.contraction == "cached" and not torch.is_grad_enabled():
            return functional.embedding(tokens, self.whole())
        places_N = tokens.flatten() if self.places is None else self.places[tokens.flatten()].long()
        slices = max(core.numel() // core.shape[1] for core in self.cores)
        parts = [self._rows(part) for part in places_N.split(max(_AT_ONCE // slices, 1))]
        return torch.cat(parts).reshape(*tokens.shape, self.width)

    def _rows(self, places_N: Tensor) -> Tensor:
        """Return (N, D)."""
        count = len(places_N)
        slowest = prod(core.shape[1] for core in self.cores)
        done = places_N.new_zeros(0)
        for core in self.cores:
            left, rows, columns, right = core.shape
            slowest //= rows
            chosen = core.transpose(0, 1)[places_N // slowest % rows]  # (N, left, columns, right)
            if len(done) == 0:
                done = chosen.reshape(count, columns, right)
            else:
                done = torch.bmm(done, chosen.reshape(count, left, columns * right))
                done = done.reshape(count, -1, right)
        return done.reshape(count, self.width)

    def scores(self, x_BD: Tensor) -> Tensor:
        """Return the product of every row with x, (B, V)."""
        if self.contraction != "chain" or torch.is_grad_enabled():
            return functional.linear(x_BD, self.whole())
        shapes, left, done, largest = [core.shape for core in self.cores], self.width, 1, 0
        for _, rows, columns, right in shapes:
            left, done = left // columns, done * rows
            largest = max(largest, done * right * left)
        x_ND = x_BD.reshape(-1, self.width)
        scores = torch.cat([self._chained(part) for part in x_ND.split(max(_AT_ONCE // largest, 1))])
        chosen = scores[:, : self.vocabulary] if self.places is None else scores[:, self.places.long()]
        return chosen.reshape(*x_BD.shape[:-1], self.vocabulary)

    def _chained(self, x_ND: Tensor) -> Tensor:
        """Return (N, rows with padding), contracted core by core."""
        count, done = len(x_ND), 1
        state = x_ND.reshape(count, 1, -1)  # (tokens, rows done, bond * columns left)
        for core in self.cores:
            bond, rows, columns, right = core.shape
            state = state.reshape(count * done, bond * columns, -1).transpose(1, 2)
            state = state @ core.permute(0, 2, 1, 3).reshape(bond * columns, rows * right)
            state = state.reshape(count, done, -1, rows, right).permute(0, 1, 3, 4, 2)
            done *= rows
            state = state.reshape(count, done, -1)
        return state.reshape(count, done)

    def whole(self) -> Tensor:
        """Return the table, (V, D), rebuilt from the cores unless it is kept and they are as they were."""
        if self.contraction != "cached" or torch.is_grad_enabled():
            return self._rebuilt()
        made_of = tuple((core.data_ptr(), core._version) for core in self.cores)
        if self.cached_weight is None or made_of != self._made_of:
            self.cached_weight, self._made_of = self._rebuilt(), made_of
        return self.cached_weight

    def _rebuilt(self) -> Tensor:
        whole: Tensor = self.cores[0]
        for core in list(self.cores)[1:]:
            _, rows, columns, bond = whole.shape
            _, more_rows, more_columns, right = core.shape
            merged = whole.reshape(rows * columns, bond) @ core.reshape(bond, -1)
            merged = merged.reshape(rows, columns, more_rows, more_columns, right).transpose(1, 2)
            whole = merged.reshape(1, rows * more_rows, columns * more_columns, right)
        table = whole.reshape(-1, self.width)
        return table[: self.vocabulary] if self.places is None else table[self.places.long()]

    def size(self) -> dict[str, Any]:
        return {
            "vocabulary": self.vocabulary,
            "cores": [list(core.shape) for core in self.cores],
            "is_ordered": self.places is not None,
            "contraction": self.contraction,
        }

    @classmethod
    def empty(cls, size: Mapping[str, Any]) -> "TtTable":
        places = torch.zeros(size["vocabulary"], dtype=torch.int32) if size["is_ordered"] else None
        cores = [torch.empty(shape) for shape in size["cores"]]
        return cls(cores, places, size["vocabulary"], size["contraction"])

    def in_place_of(self, old: nn.Module) -> nn.Module:
        """Return a copy of `old`, an embedding or linear layer, with this table as its weight."""
        dense: Any = copy.deepcopy(old, {id(p): p for p in old.parameters()})
        table = copy.deepcopy(self).float()._rebuilt().detach()
        dense.weight = nn.Parameter(table.to(old.get_parameter("weight").dtype), requires_grad=False)
        found: nn.Module = dense
        return found


class TtEmbedding(Compressed):
    """A token embedding whose table is a tensor train."""

    kind = "tt_embedding"

    def __init__(self, table: TtTable) -> None:
        super().__init__()
        self.table = table

    @property
    def num_embeddings(self) -> int:
        return self.table.vocabulary

    @property
    def embedding_dim(self) -> int:
        return self.table.width

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table.look_up(tokens)

    def connect(self, model: nn.Module) -> None:
        forget_lost_ties(model)

    def as_dense(self, old: nn.Module) -> nn.Module:
        return self.table.in_place_of(old)

    def factors(self) -> list[nn.Parameter]:
        return list(self.table.cores)

    def size(self) -> dict[str, Any]:
        return self.table.size()

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "TtEmbedding":
        return cls(TtTable.empty(size))

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


class TtHead(Compressed):
    """An output layer ``logits = E x + bias`` whose E (V, D) is a tensor train: its own, or the embedding's.

    E is rebuilt for every call unless it is kept or the cores are contracted with x one by one. A tied layer
    looks the embedding up whenever it needs it and holds no cores.
    """

    kind = "tt_head"

    def __init__(self, table: TtTable | TtEmbedding | None, owner: str, bias_V: Tensor | None) -> None:
        """`table` is its own, or the embedding to look it up in; None until `connect`. `owner` is the path
        of that embedding in the model, empty for a table of its own."""
        super().__init__()
        self.table = table if isinstance(table, TtTable) else None
        self.bias = None if bias_V is None else nn.Parameter(bias_V, requires_grad=False)
        self.owner = owner
        # In a tuple, where modules do not look for parts of their own.
        self._lender: tuple[TtEmbedding, ...] = (table,) if isinstance(table, TtEmbedding) else ()

    def connect(self, model: nn.Module) -> None:
        """Find the embedding, if the table is its."""
        forget_lost_ties(model)
        if self.owner:
            inside = f"{self.owner}."
            found = [
                module
                for name, module in model.named_modules()
                if isinstance(module, TtEmbedding) and f"{name}.".startswith(inside)
            ]
            self._lender = (found[0],)

    def rows(self) -> TtTable:
        """Return the table, whoever owns it."""
        if self.table is not None:
            return self.table
        (lender,) = self._lender
        return lender.table

    @property
    def in_features(self) -> int:
        return self.rows().width

    @property
    def out_features(self) -> int:
        return self.rows().vocabulary

    def forward(self, x_BD: Tensor) -> Tensor:
        scores = self.rows().scores(x_BD)
        return scores if self.bias is None else scores + self.bias

    def as_dense(self, old: nn.Module) -> nn.Module:
        return self.rows().in_place_of(old)

    def factors(self) -> list[nn.Parameter]:
        """Its own cores; a tied layer's are the embedding's, which names them."""
        return [] if self.table is None else list(self.table.cores)

    def size(self) -> dict[str, Any]:
        own = {} if self.table is None else self.table.size()
        return {**own, "owner": self.owner, "bias": None if self.bias is None else len(self.bias)}

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "TtHead":
        bias = None if size["bias"] is None else torch.empty(size["bias"])
        return cls(None if size["owner"] else TtTable.empty(size), size["owner"], bias)

    def extra_repr(self) -> str:
        return f"table of {self.owner}" if self.owner else f"{self.in_features}, {self.out_features}"


def forget_lost_ties(model: Any) -> None:
    """Let a model of transformers not tie weights that it no longer has, when it is loaded or asked to."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for attribute in ("all_tied_weights_keys", "_tied_weights_keys"):
        ties = getattr(model, attribute, None)
        if isinstance(ties, Mapping):
            left = {target: source for target, source in ties.items() if {target, source} <= names}
            setattr(model, attribute, left)
