"""What must be known of blocks before any is removed: what else they hold and compute, and which stay."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hpo.compress.architecture import Architecture
from hpo.compress.blocks import block_names
from hpo.compress.layers import Skipped
from hpo.compress.preparation import Prepared
from hpo.compress.statistics import Statistics
from hpo.compress.surgery import count_macs, replace, shared_copy
from hpo.errors import Unsupported

_LENGTHS = (2, 4, 6)
"""Tokens at which the operations of a block are counted: two tell its costs, the third checks them."""


@dataclass(frozen=True)
class BlockFacts:
    """Facts of every block, each an array (B,).

    ``number``; ``parameters`` and ``bytes`` beside the weights of linear layers; ``macs`` a token beside
    these, and ``scores`` a pair of tokens; ``stays``, 1 where it must. ``<path>@<class>`` names a block that
    is not simply added to what it is given.
    """

    name: str = "prune-blocks"

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        names = block_names(model)
        linear = {f"{layer.name}.weight" for layer in architecture.layers}
        weights = {name: _linear_macs(architecture, number_of(name)) for name in names}
        counted: dict[object, tuple[int, int]] = {}
        rows, odd = [], {}
        first = _first_of_their_kind(model, names)
        for index, name in enumerate(names):
            block = model.get_submodule(name)
            likeness = _likeness(block)
            if likeness not in counted:
                counted[likeness] = _operations(model, name, weights[name])
            if not _is_added(model, name, statistics.corpus.sequences[0][:8]):
                odd[name] = type(block).__name__
            stays = index in first or name in odd
            rows.append([number_of(name), *_held(block, name, linear), *counted[likeness], stays])
        keys = ("number", "parameters", "bytes", "macs", "scores", "stays")
        columns = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
        facts = dict(zip(keys, columns, strict=True))
        yield Prepared("blocks", arrays=facts | {f"{n}@{x}": torch.zeros(1) for n, x in odd.items()})


BLOCK_FACTS = BlockFacts()


def number_of(block: str) -> int:
    """Return the number at the end of a block's path."""
    return int(block.rpartition(".")[2])


def _linear_macs(architecture: Architecture, number: int) -> int:
    return sum(layer.parameters for layer in architecture.layers if layer.block == number)


def _likeness(block: nn.Module) -> object:
    """Return what blocks with the same costs have in common."""
    return type(block), tuple((name, p.shape) for name, p in block.named_parameters())


def _held(block: nn.Module, path: str, linear: set[str]) -> tuple[int, int]:
    """Return the parameters beside linear weights, and the bytes of these and of buffers."""
    others = [p for name, p in block.named_parameters() if f"{path}.{name}" not in linear]
    tensors: list[Tensor] = [*others, *block.buffers()]
    return sum(p.numel() for p in others), sum(t.numel() * t.element_size() for t in tensors)


def _operations(model: nn.Module, name: str, linear: int) -> tuple[int, int]:
    """Return the multiply-accumulates of a block beside its linear layers: a token, and a pair of tokens.

    Raises:
        Unsupported: they do not grow so with the number of tokens.
    """
    without = shared_copy(model)
    replace(without, name, Skipped())
    counts = [count_macs(model, tokens) - count_macs(without, tokens) for tokens in _LENGTHS]
    (one, two, _), (first, second, _) = _LENGTHS, counts
    scores, rest = divmod(second * one - first * two, one * two * (two - one))
    macs = first // one - one * scores - linear
    expected = [tokens * (linear + macs) + tokens**2 * scores for tokens in _LENGTHS]
    if rest or expected != counts:
        raise Unsupported(
            f"the operations of {name} are {counts} for {_LENGTHS} tokens, not a share of each token and of "
            "each pair of tokens: what removing it saves is not known exactly",
            "use a method that removes heads and units",
        )
    return macs, scores


@torch.no_grad()
def _is_added(model: nn.Module, name: str, ids_T: Tensor) -> bool:
    """Whether a block of zeros returns what it is given, so that it can be left out."""
    found: list[bool] = []

    def see(_block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        given = args[0] if args else kwargs["hidden_states"]
        found.append(isinstance(output, Tensor) and torch.equal(output, given))

    trial: Any = shared_copy(model)
    block = Skipped().as_dense(model.get_submodule(name))
    replace(trial, name, block)
    handle = block.register_forward_hook(see, with_kwargs=True)
    try:
        trial(input_ids=ids_T[None].to(next(model.parameters()).device), use_cache=False)
    finally:
        handle.remove()
    return all(found)


def _first_of_their_kind(model: Any, names: Sequence[str]) -> set[int]:
    """Return the blocks that caches and masks take their sizes from: the first, and the first of each kind of
    attention, full or sliding."""
    kinds = getattr(model.config, "layer_types", None) or [""] * len(names)
    return {0, *(list(kinds).index(kind) for kind in set(kinds))}
