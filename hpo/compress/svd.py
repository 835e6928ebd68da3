"""Low-rank factorisation: plain truncated SVD and activation-whitened SVD."""

from hpo.compress.bases import PLAIN, WHITENED
from hpo.compress.low_rank import LowRankMethod


class Svd(LowRankMethod):
    """Truncated SVD of each weight matrix: the best factors of W itself (Eckart and Young 1936)."""

    summary = "truncated SVD of every weight matrix"
    paper = "Eckart and Young 1936"
    default = PLAIN


class WhitenedSvd(LowRankMethod):
    """Truncated SVD weighted by calibration activations: the best factors of the layer's outputs.

    Sources: SVD-LLM, Wang et al. 2024, arXiv:2403.07378; V2 (Wang et al. 2025, arXiv:2503.12340) whitens
    by eigenvectors, which gives the same factors.
    """

    summary = "SVD of every weight matrix, weighted by calibration activations"
    paper = "SVD-LLM, arXiv:2403.07378; V2, arXiv:2503.12340"
    default = WHITENED
