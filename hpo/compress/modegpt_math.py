"""Which units of a layer to keep, and how the next layer makes up for the rest, in float64. Plain functions.

Letters: O output features, I input features, K kept of them, D dimensions of a head, H heads that share
something. W has shape (O, I); G is the Gram matrix of its inputs, the sum of x x'. Gram matrices get the
ridge of `svd_math` before anything is divided by them.

Source: MoDeGPT, Lin et al. 2024, arXiv:2408.09632.
"""

import torch
from torch import Tensor

from hpo.compress.svd_math import RIDGE, finite, ridged
from hpo.errors import NonFinite

LEVERAGE_RIDGE = 0.1
"""Ridge of leverage scores, times the mean diagonal of G. Perplexities hardly move with it (0.01 to 1)."""

ROUNDS = 64
"""In which `elimination_order` drops everything, equally many in each; together they cost as much as the
inverse before the first."""

_RAISES = 8


def leverage_order(gram_II: Tensor, name: str = "the inputs") -> Tensor:
    """Return the inputs by falling ridge leverage score, (I,) int64.

    The score of an input, the diagonal of G (G + r)^-1, is the share of it that no mixture of the others
    could stand in for.

    Raises:
        NonFinite: the Gram matrix holds NaN or infinity; says whose, by `name`.
    """
    G = _gram(gram_II, name)
    ridge = LEVERAGE_RIDGE * G.diagonal().mean()
    inverse = torch.cholesky_inverse(_cholesky(G + ridge * _eye(G)))
    return (1 - ridge * inverse.diagonal()).argsort(descending=True, stable=True)


def elimination_order(weight_OI: Tensor, gram_II: Tensor, name: str = "the layer") -> Tensor:
    """Return the inputs, those first that are dropped last, (I,) int64.

    Dropping input i, with the others making up for it as `refit` does, adds |w_i|^2 / (G^-1)_ii to the
    squared error of the outputs (the score of the optimal brain surgeon, Hassibi and Stork 1993). The
    cheapest go first, in `ROUNDS` rounds; after each, weights and scores are those of what is left.

    Raises:
        NonFinite: the weight or the Gram matrix holds NaN or infinity; says which, by `name`.
    """
    fitted_OK, G = finite(weight_OI.double(), name), ridged(_gram(gram_II, f"the inputs of {name}"))
    inverse_KK = torch.cholesky_inverse(_cholesky(G))
    alive_K, dropped = torch.arange(len(G), device=G.device), []
    for rounds_left in reversed(range(ROUNDS)):
        scores_K = fitted_OK.square().sum(0) / inverse_KK.diagonal()
        order_K = scores_K.argsort(descending=True, stable=True)
        keep = len(G) * rounds_left // ROUNDS
        stay, drop = order_K[:keep].sort().values, order_K[keep:]
        dropped.append(alive_K[drop])
        cross = inverse_KK[drop][:, stay]
        shares = torch.cholesky_solve(cross, _cholesky(inverse_KK[drop][:, drop]))
        fitted_OK = fitted_OK[:, stay] - fitted_OK[:, drop] @ shares
        inverse_KK = inverse_KK[stay][:, stay] - cross.T @ shares
        alive_K = alive_K[stay]
    return torch.cat(dropped[::-1])


def refit(weight_OI: Tensor, gram_II: Tensor, encoder_KI: Tensor, name: str = "the layer") -> Tensor:
    """Return the W' (O, K) with which W' (E x) comes nearest to W x: W G E' (E G E')^-1.

    With E a selection of inputs this is the Nystrom approximation of MoDeGPT's type I. An invertible E
    loses nothing: then W' E = W.

    Raises:
        NonFinite: the weight or the Gram matrix holds NaN or infinity; says which, by `name`.
    """
    W, E = finite(weight_OI.double(), name), encoder_KI.double()
    encoded_KI = E @ ridged(_gram(gram_II, f"the inputs of {name}"))
    return torch.cholesky_solve(encoded_KI @ W.T, _cholesky(encoded_KI @ E.T)).T


def refit_kept(weight_OI: Tensor, gram_II: Tensor, kept_K: Tensor, name: str = "the layer") -> Tensor:
    """Return `refit` for the encoder that picks some inputs, (O, K), without multiplying by it.

    Raises:
        NonFinite: the weight or the Gram matrix holds NaN or infinity; says which, by `name`.
    """
    W, G = finite(weight_OI.double(), name), ridged(_gram(gram_II, f"the inputs of {name}"))
    picked_KI = G[kept_K]
    return torch.cholesky_solve(picked_KI @ W.T, _cholesky(picked_KI[:, kept_K])).T


def losses_in_order(weight_OI: Tensor, gram_II: Tensor, order_I: Tensor) -> Tensor:
    """Return what each input in turn spares, (I,): with the first k kept and W refitted to them, the
    squared error of the outputs is the sum from k on.

    With G = L L' in that order, what the first k cannot explain of x is the lower right corner of L times
    noise; so W L holds the errors of all k, column by column.
    """
    G = ridged(gram_II.double())[order_I][:, order_I]
    losses: Tensor = (weight_OI.double()[:, order_I] @ _cholesky(G)).square().sum(0)
    return losses


def output_energy(
    weight_OI: Tensor, gram_II: Tensor, bias_O: Tensor | None, sum_I: Tensor | None, count: int
) -> Tensor:
    """Return the sum of y^2 over `count` inputs of y = W x + b, (O,); `sum_I`, of x, is for the bias."""
    W = weight_OI.double()
    energy_O = (W @ gram_II.double() * W).sum(1)
    if bias_O is not None and sum_I is not None:
        b = bias_O.double()
        energy_O = energy_O + 2 * (W @ sum_I.double()) * b + count * b.square()
    return energy_O.clamp(min=0)


def centred(gram_II: Tensor, sum_I: Tensor, count: int) -> Tensor:
    """Return the Gram matrix of inputs less their mean."""
    return gram_II.double() - torch.outer(sum_I.double(), sum_I.double()) / count


def score_losses(query_energy_HD: Tensor, key_energy_D: Tensor, pairs_P2: Tensor | None) -> Tensor:
    """Return what each dimension of a head carries of the attention scores, (D,), or each pair, (P,).

    It is the product of the norms of the columns of C_q^(1/2) and C_k^(1/2) (the squares of which are the
    diagonals of C, the energies), for H query heads that share one key head. A rotary pair counts as one:
    rotation moves energy within it.
    """
    if pairs_P2 is not None:
        query_energy_HD = query_energy_HD[:, pairs_P2].sum(-1)
        key_energy_D = key_energy_D[pairs_P2].sum(-1)
    return query_energy_HD.double().sum(0).sqrt() * key_energy_D.double().sqrt()


def value_encoder(weight_HOD: Tensor, gram_HDD: Tensor, name: str = "the layer") -> tuple[Tensor, Tensor]:
    """Return an orthogonal matrix (D, D) and what each of its rows in turn spares, (D,), falling.

    Its first d rows encode the value head that H query heads share: with W_h restored from them as `refit`
    does, the squared error of the sum of W_h a_h is least over rank d, if each head's inputs a_h counted
    alone (weight (H, O, D), Gram matrices (H, D, D)) and had the Gram matrix of all together. With one
    head that is exact: the singular vectors of W A, A A' = G, taken back by A^-1 and made orthonormal one
    after the other, which leaves the span of the first d the same.

    Raises:
        NonFinite: the weight or a Gram matrix holds NaN or infinity; says which, by `name`.
    """
    W = finite(weight_HOD.double(), name)
    G = ridged(_gram(gram_HDD, f"the inputs of {name}").sum(0))
    root = _cholesky(G)
    outer_DD = torch.einsum("hod,hoe->de", W, W)
    values, vectors = torch.linalg.eigh(root.T @ outer_DD @ root)
    encoder = torch.linalg.solve_triangular(root.T, vectors.flip(1), upper=True)
    return torch.linalg.qr(encoder).Q.T, values.clamp(min=0).flip(0)


def _gram(gram: Tensor, name: str) -> Tensor:
    """Return a Gram matrix in float64. Inputs that were never anything but zero count alike."""
    G = finite(gram.double(), f"the Gram matrix of {name}")
    return G if G.any() else G + _eye(G)


def _eye(gram: Tensor) -> Tensor:
    return torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)


def _cholesky(gram_II: Tensor) -> Tensor:
    """Return the lower triangular L with L L' = G.

    Where rounding left G indefinite (it was kept in float32, and some inputs are a thousand times the
    others), the ridge is raised tenfold until it is not.
    """
    found, failed = torch.linalg.cholesky_ex(gram_II)
    ridge = RIDGE * gram_II.diagonal().mean()
    for _ in range(_RAISES):
        if not failed:
            break
        ridge = 10 * ridge
        found, failed = torch.linalg.cholesky_ex(gram_II + ridge * _eye(gram_II))
    else:
        raise NonFinite("a Gram matrix is far from positive definite", "the cache or the text is damaged")
    return torch.as_tensor(found)
