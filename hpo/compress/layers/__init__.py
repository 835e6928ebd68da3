"""The modules that take the place of a dense model's, one file a kind."""

from hpo.compress.layers.adapted import AdaptedLinear
from hpo.compress.layers.compressed import Compressed, CompressedLinear
from hpo.compress.layers.corrected import CorrectedLinear, PackedLowRankLinear
from hpo.compress.layers.fewer_heads import FewerHeads
from hpo.compress.layers.kv_cache import PackedCaching
from hpo.compress.layers.low_rank import LowRankLinear
from hpo.compress.layers.mpo import MpoLinear
from hpo.compress.layers.narrow import NarrowAttention, NarrowLinear
from hpo.compress.layers.packed_narrow import PackedNarrowLinear
from hpo.compress.layers.shared_low_rank import SharedBasisLinear
from hpo.compress.layers.skipped import Skipped
from hpo.compress.layers.sliced import NarrowEmbedding, NarrowHead, SlicedBlock, SlicedNorm
from hpo.compress.layers.sparse import MaskedLinear, SparseLinear, SparseLowRankLinear
from hpo.compress.layers.tt_embedding import TtEmbedding, TtHead, TtTable

KINDS: dict[str, type[Compressed]] = {
    "low_rank": LowRankLinear,
    "mpo": MpoLinear,
    "corrected": CorrectedLinear,
    "packed_low_rank": PackedLowRankLinear,
    "packed_narrow": PackedNarrowLinear,
    "shared_basis": SharedBasisLinear,
    "masked": MaskedLinear,
    "sparse": SparseLinear,
    "sparse_low_rank": SparseLowRankLinear,
    "narrow": NarrowLinear,
    "narrow_attention": NarrowAttention,
    "fewer_heads": FewerHeads,
    "skipped": Skipped,
    "sliced_block": SlicedBlock,
    "sliced_norm": SlicedNorm,
    "narrow_embedding": NarrowEmbedding,
    "narrow_head": NarrowHead,
    "kv_cache": PackedCaching,
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
    "FewerHeads",
    "LowRankLinear",
    "MaskedLinear",
    "MpoLinear",
    "NarrowAttention",
    "NarrowEmbedding",
    "NarrowHead",
    "NarrowLinear",
    "PackedCaching",
    "PackedLowRankLinear",
    "PackedNarrowLinear",
    "SharedBasisLinear",
    "Skipped",
    "SlicedBlock",
    "SlicedNorm",
    "SparseLinear",
    "SparseLowRankLinear",
    "TtEmbedding",
    "TtHead",
    "TtTable",
]
