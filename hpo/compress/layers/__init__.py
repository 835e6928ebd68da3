"""The modules that take the place of a dense model's, one file a kind."""

from hpo.compress.layers.adapted import AdaptedLinear
from hpo.compress.layers.compressed import Compressed, CompressedLinear
from hpo.compress.layers.corrected import CorrectedLinear, PackedLowRankLinear
from hpo.compress.layers.low_rank import LowRankLinear
from hpo.compress.layers.mpo import MpoLinear
from hpo.compress.layers.narrow import NarrowAttention, NarrowLinear
from hpo.compress.layers.packed_narrow import PackedNarrowLinear
from hpo.compress.layers.shared_low_rank import SharedBasisLinear
from hpo.compress.layers.tt_embedding import TtEmbedding, TtHead, TtTable

KINDS: dict[str, type[Compressed]] = {
    "low_rank": LowRankLinear,
    "mpo": MpoLinear,
    "corrected": CorrectedLinear,
    "packed_low_rank": PackedLowRankLinear,
    "packed_narrow": PackedNarrowLinear,
    "shared_basis": SharedBasisLinear,
    "narrow": NarrowLinear,
    "narrow_attention": NarrowAttention,
    "tt_embedding": TtEmbedding,
    "tt_head": TtHead,
    "adapted": AdaptedLinear,
}
"""By the name under which an exported model's configuration lists them."""

__all__ = [
    "KINDS",
    "AdaptedLinear",
    "Compressed",
    "CompressedLinear",
    "CorrectedLinear",
    "LowRankLinear",
    "MpoLinear",
    "NarrowAttention",
    "NarrowLinear",
    "PackedLowRankLinear",
    "PackedNarrowLinear",
    "SharedBasisLinear",
    "TtEmbedding",
    "TtHead",
    "TtTable",
]
