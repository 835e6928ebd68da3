"""Metrics: what can be measured, in which unit, and which way is better."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from hpo.errors import UsageError, did_you_mean


class Source(StrEnum):
    """How a value came to be. A measured column never holds an estimate."""

    EXACT = "exact"
    """Follows from the plan alone, without running anything."""
    MEASURED = "measured"
    """Read from a run on the device named beside it."""
    MODELLED = "modelled"
    """Computed from a published model; shown as such everywhere."""


@dataclass(frozen=True)
class Metric:
    """A quantity: its name, unit, direction and one line of what it is."""

    name: str
    unit: str
    better: str
    """``"lower"`` or ``"higher"``."""
    source: Source
    """How it is usually had. Energy may be MODELLED instead where no counter exists."""
    summary: str
    useless: Callable[[float], float] | None = None
    """From the dense model's value to one at which a model is of no use to anybody; None where no such
    value can be told."""
    of_device: bool = False
    """Whether it says as much about the device as about the model: figures of two devices do not compare."""


_LOST = math.log(3)
"""Nats per token lost against the dense model with which a model is of no use: three times its perplexity."""


_BYTES_A_TOKEN = 4
"""About as many as tokenizers of tens of thousands of tokens cover of English text."""


def _useless_perplexity(dense: float) -> float:
    return dense * math.exp(_LOST)


def _useless_nll(dense: float) -> float:
    return dense + _LOST


def _useless_bits(dense: float) -> float:
    return dense + _LOST / math.log(2) / _BYTES_A_TOKEN


def _useless_kl(dense: float) -> float:
    return dense + _LOST


def _table(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


METRICS = _table(
    Metric(
        "perplexity",
        "ppl",
        "lower",
        Source.MEASURED,
        "exp of the mean negative log-likelihood per token on the evaluation text",
        useless=_useless_perplexity,
    ),
    Metric(
        "nll",
        "nats per token",
        "lower",
        Source.MEASURED,
        "mean negative log-likelihood per token on the evaluation text",
        useless=_useless_nll,
    ),
    Metric(
        "bits_per_byte",
        "bits per byte",
        "lower",
        Source.MEASURED,
        "negative log-likelihood per byte of text; compares models of different tokenizers",
        useless=_useless_bits,
    ),
    Metric(
        "kl_to_dense",
        "nats per token",
        "lower",
        Source.MEASURED,
        "mean KL divergence from the dense model's next-token distribution",
        useless=_useless_kl,
    ),
    Metric(
        "prefill_latency",
        "ms",
        "lower",
        Source.MEASURED,
        "one forward over a full context, batch 1",
        of_device=True,
    ),
    Metric(
        "prefill_latency_ratio",
        "x dense",
        "lower",
        Source.MEASURED,
        "prefill latency over the dense model's, interleaved in one process",
        of_device=True,
    ),
    Metric(
        "decode_latency",
        "ms per token",
        "lower",
        Source.MEASURED,
        "one token of greedy decoding with a KV cache, batch 1",
        of_device=True,
    ),
    Metric(
        "decode_latency_ratio",
        "x dense",
        "lower",
        Source.MEASURED,
        "decode latency over the dense model's, interleaved in one process",
        of_device=True,
    ),
    Metric("weight_memory", "bytes", "lower", Source.EXACT, "bytes of all parameters as stored"),
    Metric("parameters", "parameters", "lower", Source.EXACT, "stored parameters; tied weights count once"),
    Metric(
        "macs",
        "MACs per token",
        "lower",
        Source.EXACT,
        "multiply-accumulates per token of one prefill over a full context",
    ),
    Metric(
        "peak_memory",
        "bytes",
        "lower",
        Source.MEASURED,
        "peak memory of one prefill over a full context, weights included",
        of_device=True,
    ),
    Metric(
        "kv_cache_memory",
        "bytes",
        "lower",
        Source.EXACT,
        "bytes of the keys and values of one sequence of the full context",
    ),
    Metric(
        "energy",
        "mJ per token",
        "lower",
        Source.MEASURED,
        "energy per prompt token of a batch-1 prefill, by counter, or modelled where allowed",
        of_device=True,
    ),
)


def metric(name: str) -> Metric:
    """Return the metric called `name`.

    Raises:
        UsageError: there is no such metric.
    """
    if name not in METRICS:
        raise UsageError(f"unknown metric {name!r}", did_you_mean(name, METRICS))
    return METRICS[name]
