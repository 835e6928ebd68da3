"""Linear layers of several blocks over one basis. Letters: O output features, I input features, R rank."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo.compress.layers.compressed import CompressedLinear


class SharedBasisLinear(CompressedLinear):
    """``y = coefficients (basis x) + bias``: a layer of rank R whose basis serves its neighbours too.

    One layer of a group owns the basis, as its parameter; the others look it up there whenever they need
    it. They do not hold it, so it is counted, trained, moved and stored once, and no two layers can come to
    have different ones.
    """

    kind = "shared_basis"

    def __init__(
        self,
        coefficients_OR: Tensor,
        basis: "Tensor | SharedBasisLinear | None",
        owner: str,
        bias_O: Tensor | None,
    ) -> None:
        """`basis` is a tensor (R, I) for the layer that owns it, and that layer for the others; None until
        `connect`. `owner` is the path of that layer in the model, empty for itself."""
        super().__init__()
        self.coefficients = nn.Parameter(coefficients_OR, requires_grad=False)
        self.basis = nn.Parameter(basis, requires_grad=False) if isinstance(basis, Tensor) else None
        self.bias = None if bias_O is None else nn.Parameter(bias_O, requires_grad=False)
        self.owner = owner
        # In a tuple, where modules do not look for parts of their own.
        self._lender: tuple[SharedBasisLinear, ...]
        self._lender = (basis,) if isinstance(basis, SharedBasisLinear) else ()

    def connect(self, model: nn.Module) -> None:
        """Find the layer that owns the basis. Another module may have been put around it."""
        if self.owner:
            inside = f"{self.owner}."
            found = [
                module
                for name, module in model.named_modules()
                if isinstance(module, SharedBasisLinear) and f"{name}.".startswith(inside)
            ]
            self._lender = (found[0],)

    def shared(self) -> nn.Parameter:
        """Return the basis, shape (R, I), whoever owns it."""
        if self.basis is not None:
            return self.basis
        (lender,) = self._lender
        return lender.shared()

    @property
    def in_features(self) -> int:
        return self.shared().shape[1]

    @property
    def out_features(self) -> int:
        return self.coefficients.shape[0]

    def forward(self, x_BI: Tensor) -> Tensor:
        return functional.linear(functional.linear(x_BI, self.shared()), self.coefficients, self.bias)

    def dense_weight(self) -> Tensor:
        """Return W, shape (O, I)."""
        return self.coefficients @ self.shared().to(self.coefficients.dtype)

    def factors(self) -> list[nn.Parameter]:
        """The coefficients and, for the layer that owns it, the basis."""
        return [self.coefficients] if self.basis is None else [self.coefficients, self.basis]

    def size(self) -> dict[str, Any]:
        return {**self.features(), "rank": self.coefficients.shape[1], "owner": self.owner}

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "SharedBasisLinear":
        coefficients = torch.empty(size["out_features"], size["rank"])
        basis = None if size["owner"] else torch.empty(size["rank"], size["in_features"])
        bias = torch.empty(size["out_features"]) if size["bias"] else None
        return cls(coefficients, basis, size["owner"], bias)

    def extra_repr(self) -> str:
        of = f", basis of {self.owner}" if self.owner else ""
        return f"out={self.out_features}, rank={self.coefficients.shape[1]}{of}"
