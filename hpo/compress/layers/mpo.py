"""A linear layer whose matrix is a train of small cores (a matrix product operator, MPO).

Letters: O output features, I input features, B everything before the last dimension of x.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo.compress.layers.compressed import CompressedLinear


class MpoLinear(CompressedLinear):
    """A linear layer whose W is a matrix product operator.

    Core k has shape (bond k, out site k, in site k, bond k+1); outer bonds are 1. Index order is
    row-major: output feature = out sites with the first slowest, likewise for inputs. With contraction
    ``merged`` the first `cut` cores are contracted to one, and the rest to another, in every forward.
    """

    kind = "mpo"

    def __init__(
        self, cores: Sequence[Tensor], bias_O: Tensor | None, contraction: str, cut: int = 1
    ) -> None:
        super().__init__()
        self.cores = nn.ParameterList([nn.Parameter(core, requires_grad=False) for core in cores])
        self.bias = None if bias_O is None else nn.Parameter(bias_O, requires_grad=False)
        self.contraction = contraction
        self.cut = cut
        self.cached_weight: Tensor | None
        self.register_buffer("cached_weight", None, persistent=False)

    @property
    def in_features(self) -> int:
        return prod(core.shape[2] for core in self.cores)

    @property
    def out_features(self) -> int:
        return prod(core.shape[1] for core in self.cores)

    def forward(self, x_BI: Tensor) -> Tensor:
        cores = list(self.cores)
        if self.contraction == "merged":
            cores = [self._merged(cores[: self.cut]), self._merged(cores[self.cut :])]
        elif self.contraction != "chain":
            return functional.linear(x_BI, self._weight(), self.bias)
        y_BO = self._chain(x_BI, cores)
        return y_BO if self.bias is None else y_BO + self.bias

    def _weight(self) -> Tensor:
        if self.contraction != "cached" or torch.is_grad_enabled():
            return self.dense_weight()
        if self.cached_weight is None:
            self.cached_weight = self.dense_weight()
        return self.cached_weight

    def dense_weight(self) -> Tensor:
        """Contract the cores. Returns W, shape (O, I)."""
        return self._merged(list(self.cores)).reshape(self.out_features, self.in_features)

    @staticmethod
    def _merged(cores: Sequence[Tensor]) -> Tensor:
        """Contract neighbouring cores to one, left to right."""
        whole = cores[0]
        for core in cores[1:]:
            left, o, i, bond = whole.shape
            _, p, j, right = core.shape
            both = whole.reshape(left * o * i, bond) @ core.reshape(bond, p * j * right)
            whole = both.reshape(left, o, i, p, j, right).transpose(2, 3).reshape(left, o * p, i * j, right)
        return whole

    @staticmethod
    def _chain(x_BI: Tensor, cores: Sequence[Tensor]) -> Tensor:
        rows = x_BI.numel() // x_BI.shape[-1]
        # state: (rows, outputs done, bond, inputs left)
        state, done = x_BI.reshape(rows, 1, 1, -1), 1
        for core in cores:
            bond, o, i, right = core.shape
            left = state.shape[-1] // i
            state = state.reshape(rows * done, bond * i, left).transpose(1, 2)
            # (rows * done, left, bond * i) x (bond * i, o * right)
            state = state @ core.permute(0, 2, 1, 3).reshape(bond * i, o * right)
            state = state.reshape(rows, done, left, o, right).permute(0, 1, 3, 4, 2)
            done *= o
            state = state.reshape(rows, done, right, left)
        return state.reshape(*x_BI.shape[:-1], done)

    def factors(self) -> list[nn.Parameter]:
        return list(self.cores)

    def size(self) -> dict[str, Any]:
        cores = [list(core.shape) for core in self.cores]
        return {**self.features(), "cores": cores, "contraction": self.contraction, "cut": self.cut}

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "MpoLinear":
        bias = torch.empty(size["out_features"]) if size["bias"] else None
        cores = [torch.empty(shape) for shape in size["cores"]]
        return cls(cores, bias, size["contraction"], size.get("cut", 1))

    def extra_repr(self) -> str:
        bonds = [core.shape[3] for core in self.cores][:-1]
        return f"in={self.in_features}, out={self.out_features}, bonds={bonds}, {self.contraction}"
