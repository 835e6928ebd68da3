"""A key-value cache in few bits: keys in groups of tokens, each channel by itself; values token by token.

Channels of keys differ much in scale, so each has a grid of its own over a group of tokens; values do not, so
a token has one for every few channels. The newest tokens stay in full precision.

Source: KIVI, Liu et al. 2024, arXiv:2402.02750.

Letters: B sequences, H key-value heads, T tokens, D dimensions of a head, S members of a group.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from hpo.compress.layers.compressed import Compressed
from hpo.compress.layers.packed import pack, unpack


class PackedStates:
    """Keys or values of whole groups of tokens, (B, H, T, D), in few bits, each group with its grid."""

    def __init__(self, bits: int, size: int) -> None:
        self.bits, self.size = bits, size
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []
        """Codes (B, H, T, D * bits / 8) uint8, scales, offsets (B, H, groups..., 1) float16, as they came."""

    def add(self, states_BHTD: Tensor, dim: int) -> None:
        """Round states whose groups lie along a dimension of the last two, `size` members each."""
        groups = _grouped(states_BHTD.float(), dim, self.size)
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        offsets = low.half()
        scales = ((high - offsets.float()) / (2**self.bits - 1)).clamp(min=2.0**-24).half()
        codes = ((groups - offsets.float()) / scales.float()).round().clamp(0, 2**self.bits - 1)
        flat = _spread(codes, dim, states_BHTD.shape).to(torch.uint8)
        packed = pack(flat.reshape(-1, flat.shape[-1]), self.bits)
        self.parts.append((packed.reshape(*flat.shape[:-1], -1), scales, offsets))

    def values(self, dim: int, width: int, dtype: torch.dtype) -> list[Tensor]:
        """Return what each part stands for, (B, H, T, D)."""
        found = []
        for packed, scales, offsets in self.parts:
            flat = unpack(packed.reshape(-1, packed.shape[-1]), self.bits, width)
            codes = flat.reshape(*packed.shape[:-1], width)
            groups = _grouped(codes.float(), dim, self.size) * scales.float() + offsets.float()
            found.append(_spread(groups, dim, codes.shape).to(dtype))
        return found

    @property
    def held_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for part in self.parts for t in part)

    def select(self, rows: Tensor) -> None:
        """Keep other sequences, in another order."""
        self.parts = [
            (codes.index_select(0, rows), scales.index_select(0, rows), offsets.index_select(0, rows))
            for codes, scales, offsets in self.parts
        ]


class PackedCacheLayer(DynamicLayer):  # type: ignore[misc]  # of transformers, which has no types
    """What one layer of a model remembers: packed groups of tokens, then those in full precision.

    How many tokens are packed follows from how many there are, not from how they came. Attention reads every
    packed token as it is stored, in a prefill too, where KIVI reads them in full: so a figure of quality
    taken in one forward holds for decoding.
    """

    is_croppable = False
    keys: Tensor
    values: Tensor

    def __init__(self, bits: int, group_size: int, residual: int) -> None:
        super().__init__()
        self.group_size, self.residual = group_size, residual
        self.packed_keys, self.packed_values = PackedStates(bits, group_size), PackedStates(bits, group_size)
        self.packed = 0
        """Tokens that are packed."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add states (B, H, T, D); return those of all tokens as attention shall read them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = torch.cat([self.keys, key_states], dim=-2) if self.keys.numel() else key_states
        self.values = torch.cat([self.values, value_states], dim=-2) if self.values.numel() else value_states
        ready = max(self.keys.shape[-2] - self.residual, 0) // self.group_size * self.group_size
        if ready:
            self.packed_keys.add(self.keys[..., :ready, :], dim=-2)
            self.packed_values.add(self.values[..., :ready, :], dim=-1)
            self.keys, self.values = self.keys[..., ready:, :].clone(), self.values[..., ready:, :].clone()
            self.packed += ready
        keys = self.packed_keys.values(-2, self.keys.shape[-1], self.keys.dtype)
        values = self.packed_values.values(-1, self.values.shape[-1], self.values.dtype)
        return torch.cat([*keys, self.keys], dim=-2), torch.cat([*values, self.values], dim=-2)

    def get_seq_length(self) -> int:
        return self.packed + (self.keys.shape[-2] if self.is_initialized and self.keys.numel() else 0)

    @property
    def held_bytes(self) -> int:
        """Bytes that are held now."""
        full = (
            sum(t.numel() * t.element_size() for t in (self.keys, self.values)) if self.is_initialized else 0
        )
        return full + self.packed_keys.held_bytes + self.packed_values.held_bytes

    def reset(self) -> None:
        super().reset()
        self.packed_keys.parts, self.packed_values.parts, self.packed = [], [], 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._select(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        self._select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._select(torch.arange(len(self.keys)).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        raise NotImplementedError("tokens of a packed cache cannot be removed: they are rounded in groups")

    def _select(self, rows: Tensor) -> None:
        if self.is_initialized:
            rows = rows.to(self.keys.device)
            self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)
            self.packed_keys.select(rows)
            self.packed_values.select(rows)


class PackedCache(Cache):  # type: ignore[misc]  # of transformers, which has no types
    """A cache of packed layers, as many as the model asks for."""

    def __init__(self, bits: int, group_size: int, residual: int, layers: int) -> None:
        super().__init__(layers=[PackedCacheLayer(bits, group_size, residual) for _ in range(layers)])


class PackedCaching(Compressed):
    """Gives a model a packed cache wherever it would begin a new one; it stands in the model under `NAME`."""

    kind = "kv_cache"
    NAME = "packed_kv_cache"

    def __init__(self, bits: int, group_size: int, residual: int, layers: int) -> None:
        super().__init__()
        self.bits, self.group_size, self.residual, self.layers = bits, group_size, residual, layers

    def size(self) -> dict[str, Any]:
        return {
            "bits": self.bits,
            "group_size": self.group_size,
            "residual": self.residual,
            "layers": self.layers,
        }

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module | None) -> "PackedCaching":
        return cls(size["bits"], size["group_size"], size["residual"], size["layers"])

    def install(self, model: nn.Module) -> None:
        """Make it part of a model."""
        model.add_module(self.NAME, self)
        self.connect(model)

    def connect(self, model: nn.Module) -> None:
        model.register_forward_pre_hook(self._supply, with_kwargs=True)

    def _supply(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        given = kwargs.get("past_key_values")
        if isinstance(given, PackedCache) or (given is not None and given.get_seq_length() > 0):
            return args, kwargs
        new = PackedCache(self.bits, self.group_size, self.residual, self.layers)
        return args, {**kwargs, "past_key_values": new}


def _grouped(states_BHTD: Tensor, dim: int, size: int) -> Tensor:
    """Return the groups along a dimension as the last one: (B, H, D, T / S, S) or (B, H, T, D / S, S). A
    dimension shorter than a group is one group, and a last one may be shorter than the others."""
    moved = states_BHTD.transpose(-1, -2) if dim == -2 else states_BHTD
    width = moved.shape[-1]
    size = min(size, width)
    short = -width % size
    if short:
        moved = torch.cat([moved, moved[..., -1:].expand(*moved.shape[:-1], short)], dim=-1)
    return moved.reshape(*moved.shape[:-1], -1, size)


def _spread(groups: Tensor, dim: int, shape: torch.Size) -> Tensor:
    """Undo `_grouped`."""
    flat = groups.flatten(-2)
    if dim == -2:
        return flat[..., : shape[-2]].transpose(-1, -2).contiguous()
    return flat[..., : shape[-1]]
