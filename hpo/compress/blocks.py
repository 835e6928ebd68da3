"""The numbered blocks of a model, and a record of what goes through them.

Letters: B sequences, T tokens, D width.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hpo.compress.surgery import linear_layers
from hpo.errors import Unsupported


@dataclass(frozen=True)
class BlockCall:
    """One call of a block."""

    args: tuple[Any, ...]
    """Positional arguments; the hidden states come first, here or by name."""
    kwargs: Mapping[str, Any]
    output: Tensor
    """Hidden states (B, T, D)."""

    @property
    def given(self) -> Tensor:
        """Hidden states (B, T, D)."""
        hidden_BTD: Tensor = self.args[0] if self.args else self.kwargs["hidden_states"]
        return hidden_BTD

    def on(self, block: nn.Module, hidden_BTD: Tensor) -> Tensor:
        """Return what `block` makes of other hidden states, everything else (positions, masks) the same."""
        if self.args:
            return hidden_of(block(hidden_BTD, *self.args[1:], **self.kwargs))
        return hidden_of(block(**{**self.kwargs, "hidden_states": hidden_BTD}))


def block_names(model: nn.Module) -> tuple[str, ...]:
    """Return the paths of a dense model's blocks, in order.

    Raises:
        Unsupported: it has none.
    """
    found = (re.match(r"(.*?\.\d+)\.", name) for name, _ in linear_layers(model))
    names = tuple(dict.fromkeys(match.group(1) for match in found if match))
    if not names:
        raise Unsupported(f"{type(model).__name__} has no numbered blocks", "use loss: distil")
    return names


@contextmanager
def recording(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, BlockCall]]:
    """Record the last call of each named block while the context lasts."""
    calls: dict[str, BlockCall] = {}

    def recorder(name: str) -> Callable[..., None]:
        def record(_block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            calls[name] = BlockCall(args, kwargs, hidden_of(output))

        return record

    hooks = [
        model.get_submodule(name).register_forward_hook(recorder(name), with_kwargs=True) for name in names
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def hidden_of(output: Any) -> Tensor:
    """Return the hidden states from what a block returns: them alone, or them first in a tuple."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden
