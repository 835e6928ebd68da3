"""Layers shown as plain linear ones, for as long as adapters are trained on them.

Libraries of adapters know `nn.Linear`; our layers hold factors. So each layer is shown as one or two linear
parts, adapters are put on those, and what they learnt is put back. Letters: O output features,
I input features.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hpo.compress.layers import LowRankLinear, MpoLinear
from hpo.compress.mpo_math import balanced_cores, full_cores, sliced
from hpo.compress.surgery import bias_of, weight_of
from hpo.errors import Unsupported

WHOLE, RIGHT, LEFT = "whole", "right", "left"
"""Names of parts: all of W, the factor next to the input, the one next to the output."""


class Shown(Protocol):
    """A layer and the weights it is shown as."""

    def weights(self) -> dict[str, Tensor]:
        """Return the weight of each part, (O, I) of that part, in the order in which they are applied."""
        ...

    def learnt(self, weights: Mapping[str, Tensor]) -> nn.Module:
        """Return the layer with other weights; the module it was where nobody else has a share in it."""
        ...


def shown(module: nn.Module) -> Shown:
    """Show a layer.

    Raises:
        Unsupported: it is of a kind that cannot take back what is learnt on a linear part.
    """
    if isinstance(module, LowRankLinear):
        return _LowRank(module)
    if isinstance(module, MpoLinear):
        return _Mpo(module)
    try:
        weight_of(module)
    except Unsupported:
        raise Unsupported(
            f"adapters cannot be merged into a {type(module).__name__}",
            "keep them (adapter: kept), or train the factors (heal: fine_tune)",
        ) from None
    return _Dense(module)


class Parts(nn.Module):
    """Linear parts one after the other, in place of a layer."""

    def __init__(self, parts: Sequence[nn.Module], bias_O: Tensor | None) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.bias: Tensor | None
        self.register_buffer("bias", bias_O, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x if self.bias is None else x + self.bias


def linear(weight_OI: Tensor) -> nn.Linear:
    """Return a frozen linear layer that shares a weight's memory."""
    with torch.device("meta"):
        module = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], bias=False)
    module.weight = nn.Parameter(weight_OI.detach(), requires_grad=False)
    return module


class _LowRank:
    """Two parts, both factors; they take back whatever is learnt."""

    def __init__(self, layer: LowRankLinear) -> None:
        self._layer = layer

    def weights(self) -> dict[str, Tensor]:
        return {RIGHT: self._layer.right, LEFT: self._layer.left}

    @torch.no_grad()
    def learnt(self, weights: Mapping[str, Tensor]) -> nn.Module:
        self._layer.right.copy_(weights[RIGHT])
        self._layer.left.copy_(weights[LEFT])
        return self._layer


class _Mpo:
    """One part, W; what is learnt is fitted by TT-SVD with the bonds that the layer has."""

    def __init__(self, layer: MpoLinear) -> None:
        self._layer = layer

    def weights(self) -> dict[str, Tensor]:
        return {WHOLE: self._layer.dense_weight()}

    @torch.no_grad()
    def learnt(self, weights: Mapping[str, Tensor]) -> nn.Module:
        cores = list(self._layer.cores)
        bonds = [core.shape[3] for core in cores[:-1]]
        outs, ins = [core.shape[1] for core in cores], [core.shape[2] for core in cores]
        fitted, _ = full_cores(weights[WHOLE], outs, ins, max(bonds, default=1))
        for core, values in zip(cores, balanced_cores(sliced(fitted, bonds)), strict=True):
            core.copy_(values)
        return self._layer


class _Dense:
    """One part, W. Its memory is the dense model's, so what is learnt goes into a module of its own."""

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer

    def weights(self) -> dict[str, Tensor]:
        return {WHOLE: weight_of(self._layer)}

    def learnt(self, weights: Mapping[str, Tensor]) -> nn.Module:
        old: Any = self._layer
        new = copy.deepcopy(old, {id(parameter): parameter for parameter in old.parameters()})
        weight_OI = weights[WHOLE].to(old.weight.dtype)
        stored = weight_OI if isinstance(old, nn.Linear) else weight_OI.T  # GPT-2's Conv1D
        new.weight = nn.Parameter(stored.contiguous(), requires_grad=False)
        module: nn.Module = new
        return module


def stand_in(module: nn.Module, parts: Sequence[nn.Module]) -> Parts:
    """Return what stands in place of a layer while its parts are trained."""
    return Parts(parts, bias_of(module))
