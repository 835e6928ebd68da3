"""Bases of a residual stream. Plain functions on tensors.

Letters: N tokens, O output features, I input features, D width. W has shape (O, I); y = W x.
"""

import torch
from torch import Tensor

from hpo.compress.svd_math import finite


def normalised(x: Tensor, epsilon: float) -> Tensor:
    """Return the rows of x (..., D) divided by their root mean square, (N, D) float32."""
    rows_ND = x.reshape(-1, x.shape[-1]).float()
    return rows_ND * torch.rsqrt(rows_ND.square().mean(-1, keepdim=True) + epsilon)


def principal_basis(gram_DD: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Return the eigenvectors of a Gram matrix as columns, (D, D), and its eigenvalues, (D,), the largest
    first, float64.

    Raises:
        NonFinite: the matrix holds NaN or infinity; says whose, by `name`.
    """
    values_D, vectors_DD = torch.linalg.eigh(finite(gram_DD.double(), name))
    return vectors_DD.flip(1), values_D.flip(0).clamp(min=0.0)


def turned_reader(weight_OD: Tensor, scale_D: Tensor, basis_DD: Tensor, name: str) -> Tensor:
    """Return ``W diag(scale) Q``, (O, D) float64: the layer as it reads the norm, before its scale, of a
    stream in the basis Q.

    Raises:
        NonFinite: the weight or the scale holds NaN or infinity.
    """
    scaled = finite(weight_OD.double(), name) * finite(scale_D.double(), f"the norm before {name}")
    return scaled @ basis_DD


def turned_writer(values: Tensor, basis_DD: Tensor, name: str) -> Tensor:
    """Return ``Q' W``, (D, I), of a weight, or ``Q' b``, (D,), of a bias, float64: the layer as it writes a
    stream in the basis Q.

    Raises:
        NonFinite: the weight or bias holds NaN or infinity.
    """
    return basis_DD.T @ finite(values.double(), name)
