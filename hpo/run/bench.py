"""The protocol of a bench: what a worker keeps between trials and does for each of them.

The model's bench is `hpo.run.workbench`; a benchmark of the runners uses one that does nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from hpo.compress.profile import ModelProfile
from hpo.run.job import Job, StageResult


@dataclass(frozen=True)
class Setup:
    """What a worker knows once it is ready."""

    profile: ModelProfile | None
    """Of the dense model; None for a bench without a model."""
    device: str
    """Fingerprint of the device that timings are taken on."""
    environment: Mapping[str, str]
    """Versions and machine."""
    energy_counter: str
    """``nvml``, ``rapl``, or empty where energy can only be modelled."""


class Bench(Protocol):
    """Made once a worker, from the study's document."""

    def setup(self) -> Setup:
        """Load and prepare everything that trials share; may take minutes the first time."""
        ...

    def run(self, job: Job, stage: str) -> StageResult:
        """Do one stage. Never raises: what goes wrong is in the result."""
        ...

    def forget(self) -> None:
        """Drop what is left of the current job."""
        ...


@dataclass(frozen=True)
class BenchSpec:
    """How to make a bench in another process: a class of this code base, and a JSON document."""

    target: str
    """``module:Class``. Never read from a study file."""
    document: Mapping[str, Any]

    def make(self) -> Bench:
        module, _, name = self.target.partition(":")
        bench: Bench = getattr(import_module(module), name)(self.document)
        return bench
