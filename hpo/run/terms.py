"""On what terms the figures of a study stand beside each other: for which objectives, from which device."""

from collections.abc import Sequence
from dataclasses import dataclass

from hpo.metric import METRICS, Source
from hpo.trial import Measurement, Objective, Trial


@dataclass(frozen=True)
class Terms:
    """What a measurement must be of to count now."""

    objectives: tuple[Objective, ...]
    device: str
    """Fingerprint of the device that timings are taken on."""
    energy: Source
    """How energy is had there: a measured column holds no modelled value, nor the other way round."""

    @classmethod
    def of(cls, objectives: Sequence[Objective], device: str, energy_counter: str) -> "Terms":
        """Return the terms on a device; `energy_counter` is empty where it has none."""
        return cls(tuple(objectives), device, Source.MEASURED if energy_counter else Source.MODELLED)

    def hold(self, measurement: Measurement) -> bool:
        """Whether a measurement counts beside those that are taken now."""
        if measurement.metric == "energy" and measurement.source is not self.energy:
            return False
        of_device = METRICS[measurement.metric].of_device and measurement.source is Source.MEASURED
        return not of_device or measurement.device == self.device

    def holding(self, trial: Trial) -> tuple[Measurement, ...]:
        """Return the measurements of a trial that count, in order."""
        return tuple(filter(self.hold, trial.measurements))

    def missing(self, trial: Trial) -> tuple[str, ...]:
        """Return the objectives that a trial has no figure for that counts."""
        there = {measurement.metric for measurement in self.holding(trial)}
        return tuple(o.metric for o in self.objectives if o.metric not in there)
