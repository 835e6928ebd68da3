"""Refit of low-rank layers in order, each to the inputs that the layers before it, compressed, give it.

Letters: B sequences, T tokens, D width, I input features.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from hpo.compress.blocks import BlockCall, block_names, recording
from hpo.compress.grams import watching
from hpo.compress.layers import LowRankLinear
from hpo.compress.refit_math import refit_left
from hpo.compress.sensitivity import beginning
from hpo.compress.surgery import weight_of
from hpo.errors import Unsupported
from hpo.measure.quiet import QuietNode
from hpo.models.text import Corpus

TOKENS = 32768
"""At most so much calibration text decides (16 sequences of 2048 tokens, as in the paper). On the reference
model at 40 % kept an eighth of it gives perplexity 7.0, a quarter 6.7, all of it 6.6, four times it 6.6."""

_BATCH_TOKENS = 4096


@dataclass
class _Passage:
    """A batch of sequences on its way through both models, block by block."""

    calls: Mapping[str, BlockCall]
    """How the compressed model calls each block: positions, masks and the like."""
    dense: Tensor
    """Hidden states (B, T, D) before the block that is next, of the dense model."""
    compressed: Tensor
    """The same of the compressed one."""


@torch.no_grad()
def refit(model: nn.Module, dense: nn.Module, names: Sequence[str], corpus: Corpus) -> None:
    """Refit the left factors of the low-rank layers `names` of `model` in place, block after block.

    Within a block, layers that read the same input are fitted together, in the order in which they
    run; those after them see the result. Each fit is a ridge least squares towards what the dense layer
    puts out on dense inputs, see `refit_left`. One forward of both models a block and input, in all
    about six of the whole model, over at most `TOKENS` tokens.

    Raises:
        Unsupported: the blocks do not simply follow one another, or a layer does not read every token.
        NonFinite: an input is NaN or infinite.
    """
    blocks = block_names(dense)
    passages = [_started(model, dense, blocks, ids) for ids in _batches(model, corpus)]
    for block in blocks:
        here = [name for name in names if name.startswith(f"{block}.")]
        _refit_block(model, dense, block, here, passages)


def _refit_block(
    model: nn.Module, dense: nn.Module, block: str, names: Sequence[str], passages: Sequence[_Passage]
) -> None:
    """Refit the layers of a block and take the passages through it."""
    wanted = []
    for passage in passages:
        inputs, passage.dense = _through(dense, block, names, passage.calls[block], passage.dense)
        wanted.append(inputs)
    for group in _groups(wanted[0]):
        gram, cross = _moments(model, block, group[0], wanted, passages)
        for name in group:
            layer, old = model.get_submodule(name), dense.get_submodule(name)
            assert isinstance(layer, LowRankLinear)
            with QuietNode().working():
                layer.left.copy_(refit_left(weight_of(old), layer.left, layer.right, gram, cross, name))
    for passage in passages:
        _, passage.compressed = _through(model, block, (), passage.calls[block], passage.compressed)


def _moments(
    model: nn.Module,
    block: str,
    name: str,
    wanted: Sequence[Mapping[str, Tensor]],
    passages: Sequence[_Passage],
) -> tuple[Tensor, Tensor]:
    """Return G' = sum of x' x'^T and C = sum of x x'^T over all passages, both (I, I) float64."""
    gram: Tensor | float = 0.0
    cross: Tensor | float = 0.0
    for dense_inputs, passage in zip(wanted, passages, strict=True):
        inputs, _ = _through(model, block, [name], passage.calls[block], passage.compressed)
        x, y = dense_inputs[name], inputs[name]
        if x.shape != y.shape:
            raise _not_every_token(name)
        # float32 products of one batch, summed in float64: exact enough, at full speed.
        gram = gram + (y.T @ y).double()
        cross = cross + (x.T @ y).double()
    assert isinstance(gram, Tensor)
    assert isinstance(cross, Tensor)
    return gram, cross


def _through(
    model: nn.Module, block: str, names: Sequence[str], call: BlockCall, hidden_BTD: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """Run one block; return what its layers `names` read, (N, I) float32, and its output."""
    seen: dict[str, Tensor] = {}
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def see(name: str, x: Tensor) -> None:
        # q, k and v read one tensor; it is kept alive, so that its id is not used twice.
        _, rows = kept.setdefault(id(x), (x, x.reshape(-1, x.shape[-1]).float()))
        seen[name] = rows

    modules = [(name, model.get_submodule(name)) for name in names]
    with QuietNode().working(), watching(modules, see):
        output = call.on(model.get_submodule(block), hidden_BTD)
    if missing := [name for name in names if name not in seen]:
        raise _not_every_token(missing[0])
    return seen, output


def _groups(inputs: Mapping[str, Tensor]) -> list[list[str]]:
    """Return the layers that read the same tensor together, in order of running."""
    groups: dict[int, list[str]] = {}
    for name, x in inputs.items():
        groups.setdefault(id(x), []).append(name)
    return list(groups.values())


def _started(model: nn.Module, dense: nn.Module, blocks: Sequence[str], ids_BT: Tensor) -> _Passage:
    """Take a batch to the first block of both models.

    Raises:
        Unsupported: what one block puts out is not what the next reads.
    """
    node = QuietNode()
    with node.working(), recording(dense, blocks) as expected:
        dense(input_ids=ids_BT, use_cache=False)
    for before, after in pairwise(blocks):
        if not torch.equal(expected[before].output, expected[after].given):
            raise Unsupported(
                f"{after} does not read what {before} puts out, so layers cannot be refitted in order",
                "set refit: false",
            )
    with node.working(), recording(model, blocks) as calls:
        model(input_ids=ids_BT, use_cache=False)
    first = blocks[0]
    emptied = {block: _emptied(call) for block, call in calls.items()}
    return _Passage(emptied, expected[first].given, calls[first].given)


def _emptied(call: BlockCall) -> BlockCall:
    """Return a call without its hidden states, which would fill the memory a block at a time."""
    nothing = call.output.new_empty(0)
    if call.args:
        return BlockCall((nothing, *call.args[1:]), call.kwargs, nothing)
    return BlockCall((), {**call.kwargs, "hidden_states": nothing}, nothing)


def _batches(model: nn.Module, corpus: Corpus) -> Iterator[Tensor]:
    """Yield token ids (B, T); sequences of other lengths are not mixed, so that nothing is padded."""
    device = next(model.parameters()).device
    by_length: dict[int, list[Tensor]] = {}
    for sequence in beginning(corpus, TOKENS).sequences:
        by_length.setdefault(len(sequence), []).append(sequence)
    for length, sequences in by_length.items():
        size = max(_BATCH_TOKENS // length, 1)
        for start in range(0, len(sequences), size):
            yield torch.stack(sequences[start : start + size]).to(device)


def _not_every_token(name: str) -> Unsupported:
    return Unsupported(f"{name} does not read every token, so it cannot be refitted", "set refit: false")
