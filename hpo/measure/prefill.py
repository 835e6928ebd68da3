"""The prompt that every timing, memory and energy figure is taken on, and one forward over it."""

import torch
from torch import Tensor, nn

from hpo.errors import NonFinite

_STRIDE = 7919
"""A prime, so that token ids walk through the vocabulary instead of repeating."""


def prompt(model: nn.Module, tokens: int, device: str) -> Tensor:
    """Return (1, tokens) token ids, the same for every model with this vocabulary.

    A dense forward takes as long whatever the words are; a model that routes tokens (a mixture of
    experts) would want real text here.
    """
    embeddings: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator] # of transformers
    ids = (torch.arange(tokens) * _STRIDE) % embeddings.num_embeddings
    return ids.unsqueeze(0).to(device)


def prefill(model: nn.Module, ids: Tensor) -> Tensor:
    """Run one forward over `ids`, (1, T), without a cache; return the logits, (1, T, vocabulary)."""
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


def check_finite(logits: Tensor, what: str) -> None:
    """Refuse logits with a NaN or an infinity: a broken model's speed is of no use to anybody.

    Raises:
        NonFinite: naming `what` was run.
    """
    if not torch.isfinite(logits).all():
        raise NonFinite(
            f"{what} gave logits that are NaN or infinite",
            "the compression or its healing broke the model; try a lower learning rate or less compression",
        )
