"""The protocol of a probe: everything a stranger needs to measure something new."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from hpo.models.text import Corpus
from hpo.trial import Measurement


@dataclass(frozen=True)
class Cost:
    """What follows exactly from a plan."""

    parameters: int
    """Stored parameters; tied weights count once."""
    weight_bytes: int
    prefill_macs: int
    """Multiply-accumulates of one forward over a full context, batch 1."""
    kv_cache_bytes: int = 0
    """Keys and values of one sequence of the full context; 0 where nobody asks."""


@dataclass(frozen=True)
class Subject:
    """A model under measurement, beside the dense model it came from.

    Both are causal LMs of transformers, in eval mode, on `device`.
    """

    model: nn.Module
    dense: nn.Module
    cost: Cost
    evaluation: Corpus
    context: int
    """Tokens of a prefill and the longest window."""
    device: str
    """``cpu`` or ``cuda:0``, as torch names it."""
    repeats: int = 5
    allow_modelled: bool = False
    """Accept modelled energy where no counter exists."""

    @property
    def is_dense(self) -> bool:
        return self.model is self.dense


class Probe(Protocol):
    """Measures a family of metrics. Registered by name in `hpo.registry`; made without arguments.

    The docstring of each says what it measures, what it does not, and the source of its method.
    """

    metrics: tuple[str, ...]
    """Names from `hpo.metric.METRICS`."""

    timed: bool
    """Whether the machine must be quiet meanwhile (latency, energy): run under the measuring lock."""

    function_only: bool
    """Whether only what the model computes matters, not how: a slow contraction may then be swapped
    for an equal one."""

    def measure(self, subject: Subject, wanted: Sequence[str]) -> list[Measurement]:
        """Measure the metrics in `wanted`, a subset of `metrics`; more may be returned.

        Raises:
            NonFinite: a logit or loss is NaN or infinite.
            Unsupported: the machine cannot measure this and no modelled value is allowed.
        """
        ...
