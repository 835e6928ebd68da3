"""Narrower linear layers and attention: a plain smaller transformer, nothing multiplied that was not before.

Letters: O output features, I input features; B sequences, T tokens, H query heads, G key-value heads,
D dimensions of a head, P rotary pairs that are kept, R rotary dimensions of the dense head.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hpo.compress.layers.compressed import Compressed, CompressedLinear
from hpo.compress.layers.widened import spread, widened, with_weight
from hpo.compress.layers.wiring import WIRINGS, Heads, features_of, narrow_shapes


class NarrowLinear(nn.Linear, Compressed):
    """A linear layer with fewer outputs or inputs, where the layer next to it has as many fewer."""

    kind = "narrow"

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, parts: int = 1) -> None:
        """`parts`: as how many equal ones, one after the other, the next module reads the outputs."""
        out_features, in_features = weight_OI.shape
        super().__init__(in_features, out_features, bias=False, device="meta")
        _hold(self, weight_OI, bias_O)
        self.parts = parts

    def factors(self) -> list[nn.Parameter]:
        return [self.get_parameter("weight")]

    def size(self) -> dict[str, Any]:
        return {
            "out_features": self.out_features,
            "in_features": self.in_features,
            "bias": self.bias is not None,
            "parts": self.parts,
        }

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "NarrowLinear":
        bias = torch.empty(size["out_features"]) if size["bias"] else None
        return cls(torch.empty(size["out_features"], size["in_features"]), bias, size["parts"])

    def as_dense(self, old: nn.Module) -> nn.Module:
        """Zeros take the place of what was left out; it stands last of each part: units have no order."""
        return widened(old, self.weight, self.bias, self.parts)


class NarrowAttention(Compressed):
    """Attention whose heads have fewer dimensions, not the same number for queries and keys as for values.

    Of a rotary pair both dimensions are kept, or none, the same in a key head and in all query heads that
    share it; each keeps the angles it had. Scores are scaled as before. The layers have the names that
    they have in the dense attention; a fused one holds all queries, all keys, all values.
    """

    kind = "narrow_attention"
    pairs: Tensor | None

    def __init__(
        self,
        old: nn.Module,
        layers: Mapping[str, nn.Linear],
        pairs_GP: Tensor | None,
        heads: Heads | None = None,
    ) -> None:
        """`layers` are those that change, the others stay those of `old`. `pairs_GP` are numbers of pairs, as
        `Heads.pairs` has them, int32; None where all are kept, or none are rotated. `heads` are those of
        `old` unless others are given."""
        super().__init__()
        self.wiring = WIRINGS[type(old).__name__]
        self.heads = heads or Heads.of(old, self.wiring)
        for name in (*self.wiring.inputs, self.wiring.output):
            self.add_module(name, layers.get(name) or old.get_submodule(name))
        self.narrowed = tuple(layers)
        self.register_buffer("pairs", pairs_GP)
        self.value = features_of(self.get_submodule(self.wiring.output))[1] // self.heads.queries
        self.query_key = self._query_key_size()
        self._take_over(old)

    def _query_key_size(self) -> int:
        rows = features_of(self.get_submodule(self.wiring.inputs[0]))[0] // self.heads.queries
        return (rows - self.value) // 2 if self.wiring.is_fused else rows

    def _take_over(self, old: Any) -> None:
        """Have the attributes that functions of attention look for."""
        self.config, self.layer_idx = old.config, old.layer_idx
        self.is_causal, self.scaling = old.is_causal, old.scaling
        self.num_key_value_groups = self.heads.queries // self.heads.keys
        inside = getattr(old, "attn_dropout", None)  # GPT-2 has a module
        rate = inside.p if inside is not None else getattr(old, "attention_dropout", None)
        self.attention_dropout = float(old.dropout if rate is None else rate)
        self.resid_dropout = getattr(old, "resid_dropout", None) or nn.Identity()
        window = getattr(old.config, "sliding_window", None)
        self.sliding_window = getattr(old, "sliding_window", window)

    def forward(
        self,
        hidden_states: Tensor,
        *,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        layer_past: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """As the dense attention's, whatever its class. Returns hidden states (B, T, I) and, from some
        functions of attention, weights."""
        query, key, value = self._projected(hidden_states)
        if position_embeddings is not None and self.wiring.is_rotary:
            query, key = self._rotated(query, key, *position_embeddings)
        cache = layer_past if past_key_values is None else past_key_values
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, _attend)
        mixed, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )
        mixed = mixed.reshape(*hidden_states.shape[:-1], -1)
        return self.resid_dropout(self.get_submodule(self.wiring.output)(mixed)), weights

    def _projected(self, hidden_BTI: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, H, T, D), keys and values (B, G, T, D)."""
        heads = self.heads
        parts: Any = [self.get_submodule(name)(hidden_BTI) for name in self.wiring.inputs]
        if self.wiring.is_fused:
            counts = (heads.queries, heads.keys, heads.keys)
            sizes = (self.query_key, self.query_key, self.value)
            parts = parts[0].split([n * size for n, size in zip(counts, sizes, strict=True)], dim=-1)
        shape = (*hidden_BTI.shape[:-1], -1)
        query, key = (part.view(*shape, self.query_key).transpose(1, 2) for part in parts[:2])
        return query, key, parts[2].view(*shape, self.value).transpose(1, 2)

    def _rotated(self, query: Tensor, key: Tensor, cos_BTR: Tensor, sin_BTR: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = self._angles(cos_BTR, 1.0), self._angles(sin_BTR, 0.0)
        batch, _, tokens, size = query.shape
        by_key = query.reshape(batch, cos.shape[1], -1, tokens, size)
        turned = _turned(by_key, cos[:, :, None], sin[:, :, None])
        return turned.reshape(query.shape), _turned(key, cos, sin)

    def _angles(self, table_BTR: Tensor, still: float) -> Tensor:
        """Return the cosines or sines of the pairs that are kept, (B, G, T, P), or (B, 1, T, P) if all are;
        `still` is that of a pair that does not turn."""
        half = table_BTR.shape[-1] // 2
        table = table_BTR[..., :half]
        if self.heads.rotary < self.heads.size:
            extra = (self.heads.size - self.heads.rotary) // 2
            table = functional.pad(table, (0, extra), value=still)
        if self.pairs is None:
            return table[:, None]
        picked = table.index_select(-1, self.pairs.flatten())
        return picked.reshape(*table.shape[:-1], *self.pairs.shape).transpose(1, 2)

    def factors(self) -> list[nn.Parameter]:
        plain = [self.get_submodule(name) for name in self.narrowed]
        return [part.get_parameter("weight") for part in plain if not isinstance(part, Compressed)]

    def size(self) -> dict[str, Any]:
        return {"query_key": self.query_key, "value": self.value}

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "NarrowAttention":
        wiring = WIRINGS[type(old).__name__]
        heads = Heads.of(old, wiring)
        layers = {}
        for name, (rows, columns) in narrow_shapes(wiring, heads, size["query_key"], size["value"]).items():
            layer = old.get_submodule(name)
            dense_rows, dense_columns = features_of(layer)
            shape = (rows or dense_rows, columns or dense_columns)
            bias = None if layer.bias is None else torch.empty(shape[0])
            layers[name] = plain_linear(torch.empty(shape), bias)
        is_picked = wiring.is_rotary and size["query_key"] < heads.size
        shape = (heads.keys, size["query_key"] // 2)
        return cls(old, layers, torch.empty(shape, dtype=torch.int32) if is_picked else None)

    def as_dense(self, old: nn.Module) -> nn.Module:
        """Zeros take the place of what was left out; rotary pairs return to where their angles are."""
        heads, wiring = self.heads, self.wiring
        dense = copy.deepcopy(old, {id(p): p for p in old.parameters()})
        counts, size = (heads.queries, heads.keys, heads.keys), heads.size
        for index, name in enumerate(wiring.inputs):
            if name in self.narrowed:
                parts = range(3) if wiring.is_fused else (index,)
                rows = [wiring.rows(p, counts[p], size)[1].gather(1, self._dims(p)).flatten() for p in parts]
                setattr(dense, name, self._spread_out(old, name, torch.cat(rows), None))
        if wiring.output in self.narrowed:
            columns = (torch.arange(heads.queries)[:, None] * size + torch.arange(self.value)).flatten()
            setattr(dense, wiring.output, self._spread_out(old, wiring.output, None, columns))
        return dense

    def _dims(self, part: int) -> Tensor:
        """Return which dimensions of the dense heads those kept are: queries, keys or values, (heads, D)."""
        heads = self.heads
        if part == 2 or not self.wiring.is_rotary:
            size, count = (self.value, heads.keys) if part == 2 else (self.query_key, heads.keys)
            dims_GD = torch.arange(size).expand(count, -1)
        else:
            every = torch.arange(heads.size // 2).expand(heads.keys, -1)
            pairs_GP = every if self.pairs is None else self.pairs.long().cpu()
            dims_GD = heads.pairs()[pairs_GP].transpose(1, 2).flatten(1)
        return dims_GD.repeat_interleave(self.num_key_value_groups, 0) if part == 0 else dims_GD

    def _spread_out(
        self, old: nn.Module, name: str, rows: Tensor | None, columns: Tensor | None
    ) -> nn.Module:
        layer, narrow = old.get_submodule(name), self.get_submodule(name)
        out_features, in_features = features_of(layer)
        weight, bias = _weight_of(narrow).to(layer.get_parameter("weight").dtype), narrow.bias
        rows = torch.arange(out_features) if rows is None else rows
        columns = torch.arange(in_features) if columns is None else columns
        return with_weight(
            layer,
            spread(weight, rows, out_features, columns, in_features),
            spread(bias, rows, out_features) if isinstance(bias, Tensor) else None,
        )


def _weight_of(layer: nn.Module) -> Tensor:
    """Return W (O, I) of a plain layer, or of one that is held in another form since."""
    if isinstance(layer, CompressedLinear):
        return layer.dense_weight().detach()
    return layer.get_parameter("weight")


def plain_linear(weight_OI: Tensor, bias_O: Tensor | None) -> nn.Linear:
    """Return a linear layer of such values, which share its memory and take no gradients."""
    out_features, in_features = weight_OI.shape
    layer = nn.Linear(in_features, out_features, bias=False, device="meta")
    _hold(layer, weight_OI, bias_O)
    return layer


def _hold(layer: nn.Linear, weight_OI: Tensor, bias_O: Tensor | None) -> None:
    layer.weight = nn.Parameter(weight_OI, requires_grad=False)
    if bias_O is not None:
        layer.bias = nn.Parameter(bias_O, requires_grad=False)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs of x, (..., 2P), the first of each in the first half."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attention in plain operations ("eager"). Returns (B, T, H, D) and the weights (B, H, T, T)."""
    each = module.num_key_value_groups
    key, value = key.repeat_interleave(each, 1), value.repeat_interleave(each, 1)
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights
