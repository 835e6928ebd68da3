"""The embedding as a tensor train: tokens in order of frequency, and cores that weigh them by it.

Plain functions on tensors. Letters: V vocabulary, D width, R rows after padding, the product of the row
sites.
"""

from collections.abc import Sequence
from functools import reduce
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from hpo.compress.mpo_math import full_cores


def token_counts(sequences: Sequence[Tensor], vocabulary: int) -> Tensor:
    """Return how often each token stands in a text, (V,)."""
    counts = torch.zeros(vocabulary, dtype=torch.long)
    for sequence in sequences:
        counts += torch.bincount(sequence.cpu(), minlength=vocabulary)
    return counts


def places_by_frequency(counts_V: Tensor) -> Tensor:
    """Return each token's place when the most frequent stands first, (V,) int32; equal ones keep their order.

    Neighbours in a tensor train share slices of its cores, so its order decides what it can express. By
    frequency, the first row site tells frequent tokens from rare ones, which weights can then follow.
    """
    order = torch.argsort(counts_V, descending=True, stable=True)
    places = torch.empty(len(order), dtype=torch.int32)
    places[order] = torch.arange(len(order), dtype=torch.int32)
    return places


def site_weights(counts_R: Tensor, row_sites: Sequence[int]) -> list[Tensor]:
    """Return one weight for every index of every row site, float64, whose products come near sqrt(count + 1).

    A tensor train cannot undo a weight for each row, but it can one for each index of a site: dividing a
    slice of a core. These are the best of that kind in the logarithm: the mean over the other sites. The
    overall mean is left out, since a common factor of all weights changes nothing.
    """
    logs = 0.5 * (counts_R.double() + 1).log().reshape(*row_sites)
    axes = range(len(row_sites))
    means = [logs.mean(dim=[other for other in axes if other != axis]) for axis in axes]
    return [(mean - logs.mean()).exp() for mean in means]


def embedding_cores(
    table_VD: Tensor,
    row_sites: Sequence[int],
    column_sites: Sequence[int],
    largest: int,
    places_V: Tensor | None = None,
    counts_V: Tensor | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the cores of a table with bonds up to `largest`, nested in their bonds, and the cuts' spectra.

    With places and counts, tokens stand at their places and the error of a token's row counts by its
    frequency, as near as `site_weights` come: what TT-SVD truncates is the weighted table.

    Source: TensorGPT, Xu et al. 2023, arXiv:2307.00526, has a tensor train for each token; here one for
    the whole table (TT-matrix, Oseledets 2011; as an embedding Hrinchuk et al. 2020, arXiv:1901.10787).
    Order and weights by frequency are ours.

    Raises:
        NonFinite: the table holds NaN or infinity.
    """
    padding = prod(row_sites) - len(table_VD)
    rows = table_VD.double()
    counts = torch.zeros(len(rows)) if counts_V is None else counts_V.double()
    if places_V is not None:
        order = torch.argsort(places_V)
        rows, counts = rows[order.to(rows.device)], counts[order]
    weights = [w.to(rows.device) for w in site_weights(functional.pad(counts, (0, padding)), row_sites)]
    padded = functional.pad(rows, (0, 0, 0, padding))
    each = reduce(torch.kron, weights)
    cores, spectra = full_cores(padded * each[:, None], row_sites, column_sites, largest)
    return [core / w[:, None, None] for core, w in zip(cores, weights, strict=True)], spectra
