"""Gradients of a calibration text's loss with respect to the linear layers, sequence by sequence.

Letters: O output features, I input features, T tokens, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hpo.compress.surgery import linear_layers
from hpo.measure.quiet import QuietNode

Take = Callable[[str, Tensor], None]
"""Given a layer's name and its gradient (O, I), which is gone afterwards."""


def run_gradients(model: nn.Module, sequences: Sequence[Tensor], take: Take) -> None:
    """Hand over the gradient of every linear layer's weight for one sequence after the other.

    The loss is that of the sequence's own next tokens, summed. A layer's gradient is let go as soon as it
    was taken. The model stays as it is.
    """
    device, node = next(model.parameters()).device, QuietNode()
    with _taking(model, take), torch.enable_grad():
        for sequence in sequences:
            with node.working():
                ids_T = sequence.to(device)
                logits_TV = model(input_ids=ids_T[None], use_cache=False).logits[0, :-1]
                cross_entropy(logits_TV.float(), ids_T[1:], reduction="sum").backward()


@contextmanager
def _taking(model: nn.Module, take: Take) -> Iterator[None]:
    def taker(name: str, module: nn.Module) -> Callable[[Tensor], None]:
        is_transposed = not isinstance(module, nn.Linear)  # GPT-2's Conv1D

        def taken(weight: Tensor) -> None:
            gradient = weight.grad
            assert gradient is not None
            take(name, gradient.T if is_transposed else gradient)
            weight.grad = None

        return taken

    layers = [(name, module, module.get_parameter("weight")) for name, module in linear_layers(model)]
    before = [weight.requires_grad for _, _, weight in layers]
    handles = []
    for name, module, weight in layers:
        weight.requires_grad_(True)
        handles.append(weight.register_post_accumulate_grad_hook(taker(name, module)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for (_, _, weight), required in zip(layers, before, strict=True):
            weight.requires_grad_(required)
            weight.grad = None
