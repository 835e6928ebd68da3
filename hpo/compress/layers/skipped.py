"""What takes the place of a block that is removed. Letters: B sequences, T tokens, D width."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hpo.compress.layers.compressed import Compressed


class Skipped(Compressed):
    """Returns the hidden states that it is given. Has no parameters."""

    kind = "skipped"

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Hidden states (B, T, D); whatever else a block is given (masks, positions, a cache) is not read."""
        return hidden_states

    def size(self) -> dict[str, Any]:
        return {}

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "Skipped":
        return cls()

    def as_dense(self, old: nn.Module) -> nn.Module:
        """The block with zeros for all of its parameters: it adds nothing to what it is given."""
        dense = copy.deepcopy(old, {id(p): p for p in old.parameters()})
        for module in dense.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(torch.zeros_like(parameter), requires_grad=False))
        return dense
