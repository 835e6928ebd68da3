"""Find the residual stream in a model: the modules that read and write it, in order."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from torch import nn

from hpo.compress.architecture import Architecture
from hpo.compress.blocks import block_names
from hpo.errors import Unsupported

BLOCKS = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
"""Classes of blocks that add to the stream what attention and MLP make of an RMS norm of it, and no more."""

_ATTENTION = (
    "input_layernorm",
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj",
)
_MLP = ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj")
_CHILDREN = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


@dataclass(frozen=True)
class Branch:
    """An attention or an MLP: it reads a norm of the stream and adds to the stream."""

    norm: str
    """Path of a module, as all of these."""
    readers: tuple[str, ...]
    writer: str


@dataclass(frozen=True)
class Block:
    path: str
    attention: Branch
    mlp: Branch


@dataclass(frozen=True)
class Stream:
    """Everything that has the stream's width, from the embedding to the output layer."""

    embedding: str
    blocks: tuple[Block, ...]
    last_norm: str
    head: str

    @property
    def branches(self) -> Iterator[Branch]:
        return chain.from_iterable((block.attention, block.mlp) for block in self.blocks)

    @property
    def norms(self) -> tuple[str, ...]:
        """In order: two a block, and the last one."""
        return (*(branch.norm for branch in self.branches), self.last_norm)

    @property
    def layers(self) -> tuple[str, ...]:
        """Linear layers of the blocks."""
        return tuple(name for branch in self.branches for name in (*branch.readers, branch.writer))


def stream_of(model: nn.Module, architecture: Architecture) -> Stream:
    """Find the stream of a model.

    Raises:
        Unsupported: the model is of a class whose stream is not known; names it.
    """
    paths = block_names(model)
    for path in paths:
        block = model.get_submodule(path)
        if type(block).__name__ not in BLOCKS or {name for name, _ in block.named_children()} != _CHILDREN:
            raise Unsupported(
                f"the stream through a {type(block).__name__} is not known, only that of blocks with RMS "
                f"norms before attention and MLP: {', '.join(BLOCKS)}",
                "choose another method of the stage prune",
            )
    shape = architecture.embedding
    if shape is None or not shape.head:
        raise Unsupported(
            f"{type(model).__name__} has no plain embedding and output layer of one shape",
            "choose another method of the stage prune",
        )
    last = f"{paths[0].rpartition('.')[0].rpartition('.')[0]}.norm"
    found = Stream(shape.name, tuple(_block(path) for path in paths), last, shape.head)
    _check_weights(model, architecture, found)
    return found


def _block(path: str) -> Block:
    def branch(norm: str, readers: tuple[str, ...], writer: str) -> Branch:
        return Branch(f"{path}.{norm}", tuple(f"{path}.{name}" for name in readers), f"{path}.{writer}")

    return Block(path, branch(*_ATTENTION), branch(*_MLP))


def _check_weights(model: nn.Module, architecture: Architecture, stream: Stream) -> None:
    """Refuse a model with weights that are none of the stream's, or layers that plans do not list."""
    if set(stream.layers) != {layer.name for layer in architecture.layers}:
        raise Unsupported(
            f"the linear layers of {type(model).__name__} are not those of plain attention and MLPs, or some "
            "are too small to be planned",
            "choose another method of the stage prune",
        )
    known = {stream.embedding, stream.head, *stream.norms, *stream.layers}
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    # Norms of single heads, as Qwen3 has, see what the layers put out and not the stream.
    odd = {name for name in owners - known if not name.endswith(("self_attn.q_norm", "self_attn.k_norm"))}
    if odd:
        raise Unsupported(
            f"{sorted(odd)[0]} of {type(model).__name__} has weights whose place in the stream is not known",
            "choose another method of the stage prune",
        )
    if len({parameter.dtype for parameter in model.parameters()}) != 1:
        raise Unsupported("the weights are stored in different precisions", "set model.dtype in the study")
