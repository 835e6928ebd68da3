"""How likely a model finds text: the arithmetic under every quality figure.

Letters of shapes: S sequences, B sequences of one length, T tokens, V vocabulary. Log-softmax in
float32 whatever the model computes in; sums over tokens in float64.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from hpo.errors import NonFinite
from hpo.measure.quiet import QuietNode

_BATCH_TOKENS = 4096
"""Tokens of one forward: enough to keep a core busy, and little beside any model's weights."""
_CHUNK = 256
"""Positions whose logits are in float32 at once; a large vocabulary makes them the biggest tensor."""


@dataclass(frozen=True)
class Scores:
    """Sums over the predicted tokens of each sequence; all (S,) and float64, on the CPU."""

    tokens: Tensor
    """Predicted tokens."""
    nll: Tensor
    """Negative log-likelihood, nats."""
    kl: Tensor | None
    """KL(dense || model) of the next-token distributions, nats."""


@torch.no_grad()
def score(model: nn.Module, sequences: Sequence[Tensor], dense: nn.Module | None = None) -> Scores:
    """Score each sequence (T,) with a causal LM; with `dense`, also the divergence from it.

    Every token but the first of a sequence counts, once. Both models must be on one device; the
    mode `model` is in (training or not) is put back afterwards.

    Raises:
        NonFinite: a logit is NaN or infinite; names the first such sequence.
    """
    device = next(model.parameters()).device
    nll_S = torch.zeros(len(sequences), dtype=torch.float64)
    kl_S = None if dense is None else torch.zeros_like(nll_S)
    node = QuietNode()
    with _in_eval_mode(model):
        for chosen in _batches(sequences):
            with node.working():  # a batch at a time, so that another worker's timing need not wait long
                tokens_BT = torch.stack([sequences[i] for i in chosen]).to(device)
                logits_BTV = _logits(model, tokens_BT)
                _check_finite(logits_BTV, chosen, len(sequences))
                nll_S[chosen] = _nll(logits_BTV, tokens_BT[:, 1:]).cpu()
                if dense is not None and kl_S is not None:
                    kl_S[chosen] = _kl(_logits(dense, tokens_BT), logits_BTV).cpu()
    lengths = torch.tensor([len(sequence) - 1 for sequence in sequences], dtype=torch.float64)
    return Scores(lengths, nll_S, kl_S)


def _batches(sequences: Sequence[Tensor]) -> Iterator[list[int]]:
    """Yield positions of sequences of one length, so that nothing is padded or masked."""
    by_length: dict[int, list[int]] = {}
    for position, sequence in enumerate(sequences):
        by_length.setdefault(len(sequence), []).append(position)
    for length, positions in by_length.items():
        size = max(1, _BATCH_TOKENS // length)
        for start in range(0, len(positions), size):
            yield positions[start : start + size]


def _logits(model: nn.Module, tokens_BT: Tensor) -> Tensor:
    """Return the logits that predict a token: (B, T - 1, V), those of the last place left out."""
    logits: Tensor = model(input_ids=tokens_BT, use_cache=False).logits
    return logits[:, :-1]


def _check_finite(logits_BTV: Tensor, chosen: Sequence[int], total: int) -> None:
    bad = ~logits_BTV.isfinite().flatten(1).all(dim=1)
    if bool(bad.any()):
        first = chosen[int(bad.nonzero()[0])]
        raise NonFinite(
            f"a logit of window {first} of {total} is NaN or infinite",
            "the compressed weights or their precision are beyond what this model bears",
        )


def _nll(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Return the summed negative log-likelihood of each row, (B,) float64."""
    chunks = zip(logits_BTV.split(_CHUNK, dim=1), targets_BT.split(_CHUNK, dim=1), strict=True)
    sums = [
        cross_entropy(logits.float().mT, targets, reduction="none").double().sum(dim=1)
        for logits, targets in chunks
    ]
    return torch.stack(sums).sum(dim=0)


def _kl(dense_BTV: Tensor, logits_BTV: Tensor) -> Tensor:
    """Return the summed KL(dense || model) of each row, (B,) float64."""
    chunks = zip(dense_BTV.split(_CHUNK, dim=1), logits_BTV.split(_CHUNK, dim=1), strict=True)
    sums = []
    for dense, logits in chunks:
        wanted, given = dense.float().log_softmax(-1), logits.float().log_softmax(-1)
        terms = kl_div(given, wanted, reduction="none", log_target=True)
        sums.append(terms.double().sum(dim=(1, 2)))
    return torch.stack(sums).sum(dim=0)


@contextmanager
def _in_eval_mode(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
