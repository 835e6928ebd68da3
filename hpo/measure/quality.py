"""Quality: how well a model still predicts text."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hpo.errors import NonFinite
from hpo.measure.device import fingerprint
from hpo.measure.likelihood import score
from hpo.measure.probe import Subject
from hpo.metric import Source, metric
from hpo.models.text import Corpus
from hpo.trial import Measurement

_MOST_NATS = math.log(1e30)
"""Above this mean negative log-likelihood a perplexity says nothing: guessing among all the tokens of
any vocabulary gives about 12 nats. Such a model is a failure with a cause, not a number to learn from."""


class QualityProbe:
    """*Measures*: nll, the mean negative log-likelihood per predicted token of the evaluation text in
    nats; perplexity, ``exp(nll)``; bits_per_byte, the same sum per UTF-8 byte of the predicted text,
    which alone compares models of different tokenizers; kl_to_dense, the mean over the same places
    of KL(dense || compressed) of the next-token distributions (the accuracy metric proposed for
    compressed models in Dutta and others 2024, "Accuracy is Not All You Need", arXiv:2407.09141).

    *Does not measure*: tasks, generation, or text unlike the evaluation text.

    *Method*: each sequence is read alone and every token but its first counts once; log-softmax in
    float32, sums in float64. The spread is the standard error over sequences, for perplexity by the
    delta method (``perplexity * error of nll``); it says how far other text of this kind would
    differ, and is larger than the noise between two models on the same text.
    """

    metrics: tuple[str, ...] = ("perplexity", "nll", "bits_per_byte", "kl_to_dense")
    timed = False
    function_only = True

    def measure(self, subject: Subject, wanted: Sequence[str]) -> list[Measurement]:
        """Measure nll, perplexity and bits_per_byte together, and kl_to_dense where it is wanted.

        Raises:
            NonFinite: a logit is NaN or infinite, or nll is beyond 69 nats per token.
        """
        corpus = subject.evaluation
        compared = "kl_to_dense" in wanted and not subject.is_dense
        scores = score(subject.model, corpus.sequences, subject.dense if compared else None)
        nll, error = mean_and_error(scores.nll, scores.tokens)
        if nll > _MOST_NATS:
            raise NonFinite(
                f"the mean negative log-likelihood is {nll:.4g} nats per token: the model is destroyed",
                "compress less, or heal",
            )
        per_byte = corpus.predicted / corpus.bytes / math.log(2)
        found = {
            "nll": (nll, error),
            "perplexity": (math.exp(nll), math.exp(nll) * error),
            "bits_per_byte": (nll * per_byte, error * per_byte),
        }
        if scores.kl is not None:
            found["kl_to_dense"] = mean_and_error(scores.kl, scores.tokens)
        elif "kl_to_dense" in wanted:
            found["kl_to_dense"] = (0.0, 0.0)  # the dense model from itself
        return [self._measurement(name, *pair, subject) for name, pair in found.items()]

    def _measurement(self, name: str, value: float, spread: float, subject: Subject) -> Measurement:
        corpus = subject.evaluation
        text = f"{corpus.predicted} tokens in {len(corpus.sequences)} sequences, text {corpus.digest[:12]}"
        return Measurement(
            metric=name,
            value=value,
            unit=metric(name).unit,
            source=Source.MEASURED,
            spread=spread,
            device=fingerprint(subject.device, torch.get_num_threads()),
            note=f"{text}; spread: standard error over sequences",
        )


def mean_nll(model: nn.Module, corpus: Corpus) -> float:
    """Return the mean negative log-likelihood per predicted token, in nats.

    Raises:
        NonFinite: a logit is NaN or infinite.
    """
    scores = score(model, corpus.sequences)
    return mean_and_error(scores.nll, scores.tokens)[0]


def mean_and_error(sums_S: Tensor, tokens_S: Tensor) -> tuple[float, float]:
    """Return the mean per token of per-sequence sums, and its standard error over sequences.

    The error of a ratio of sums (Cochran, "Sampling Techniques", 1977, section 6.4), so sequences may
    differ in length; 0 for a single sequence, which tells nothing of it.
    """
    count, total = len(sums_S), float(tokens_S.sum())
    mean = float(sums_S.sum()) / total
    if count < 2:
        return mean, 0.0
    residuals = sums_S - mean * tokens_S
    return mean, math.sqrt(float(residuals.square().sum()) * count / (count - 1)) / total
