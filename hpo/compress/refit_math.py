"""One factor of a low-rank layer fitted again, in float64. Plain functions on tensors.

Letters: O output features, I input features, R rank, N tokens. X (I, N) is what the dense layer reads,
X' what the compressed model gives the same layer.
"""

import torch
from torch import Tensor

from hpo.compress.svd_math import RIDGE, finite


def refit_left(
    weight_OI: Tensor,
    left_OR: Tensor,
    right_RI: Tensor,
    gram_II: Tensor,
    cross_II: Tensor,
    name: str = "the layer",
) -> Tensor:
    """Return the left factor (O, R) with which left right X' comes nearest to W X, in float64.

    It minimises ||W X - left right X'||_F^2 + ridge ||left - left_OR||_F^2, so that directions without
    data keep what they had, and the first term never grows. `gram_II` is G' = X' X'^T, `cross_II` is
    C = X X'^T; the minimiser is (W C right^T + ridge left_OR) (right G' right^T + ridge)^-1. The
    ridge is `RIDGE` times the mean diagonal of right G' right^T.

    Source: the sequential update of SVD-LLM, Wang et al. 2024, arXiv:2403.07378, section 3.3.

    Raises:
        NonFinite: a moment holds NaN or infinity; says which, by `name`.
    """
    W, left, right = weight_OI.double(), left_OR.double(), right_RI.double()
    G = finite(gram_II.double(), f"the Gram matrix of the compressed model at {name}")
    C = finite(cross_II.double(), f"the cross moment of dense and compressed inputs at {name}")
    normal = right @ G @ right.T
    ridge = RIDGE * normal.diagonal().mean()
    if ridge <= 0:
        return left
    normal = normal + ridge * torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
    found: Tensor = torch.linalg.solve(normal, W @ C @ right.T + ridge * left, left=False)
    return found


def squared_error(
    weight_OI: Tensor, left_OR: Tensor, right_RI: Tensor, own_II: Tensor, gram_II: Tensor, cross_II: Tensor
) -> float:
    """Return ||W X - left right X'||_F^2 from moments: own = X X^T, gram = X' X'^T, cross = X X'^T."""
    W, product = weight_OI.double(), left_OR.double() @ right_RI.double()
    own = ((W @ own_II.double()) * W).sum()
    mixed = ((W @ cross_II.double()) * product).sum()
    compressed = ((product @ gram_II.double()) * product).sum()
    return float(own - 2 * mixed + compressed)
