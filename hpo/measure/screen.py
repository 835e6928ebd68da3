"""A first look at a compressed model: how far its predictions are from the dense one's, on little text."""

from torch import Tensor, nn

from hpo.measure.likelihood import score
from hpo.measure.quality import mean_and_error
from hpo.models.text import Corpus

SCREEN_TOKENS = 4096
"""Tokens read, at most: a few windows of a large model, a moment beside everything else in a trial."""


def screen_kl(model: nn.Module, dense: nn.Module, calibration: Corpus) -> float:
    """Return the mean KL(dense || model) of the next-token distributions, nats, on calibration text.

    The text is the end of it, where the sequences lie that are held out from healing. Never evaluation text:
    what a search is steered by must not be what it is judged by.

    Raises:
        NonFinite: a logit is NaN or infinite.
    """
    scores = score(model, _last(calibration), dense)
    assert scores.kl is not None
    return mean_and_error(scores.kl, scores.tokens)[0]


def _last(calibration: Corpus) -> list[Tensor]:
    """Return the last sequences of up to `SCREEN_TOKENS` tokens in all, at least one."""
    found: list[Tensor] = []
    left = SCREEN_TOKENS
    for sequence in reversed(calibration.sequences):
        left -= len(sequence)
        if found and left < 0:
            break
        found.append(sequence)
    return found
