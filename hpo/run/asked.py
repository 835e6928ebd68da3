"""What is to be measured of a job, and in which stages."""

from collections.abc import Mapping, Sequence

from hpo import registry
from hpo.measure.probe import Probe
from hpo.run.job import Job
from hpo.trial import Objective

ALWAYS = ("nll", "perplexity", "bits_per_byte", "weight_memory", "parameters", "macs")
"""Measured for every trial, whatever the objectives: cheap, and wanted afterwards."""


class Asked:
    """The metrics of a study. Those that a job knows already are not asked for again."""

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._metrics = tuple(dict.fromkeys([*ALWAYS, *(objective.metric for objective in objectives)]))

    def of(self, job: Job, timed: bool) -> Mapping[str, list[str]]:
        """Return probe name -> metrics to measure, of the timed or the untimed probes."""
        metrics = [metric for metric in self._metrics if metric not in job.known]
        found = {}
        for name in registry.names("probe"):
            probe: Probe = registry.load("probe", name)()
            mine = [metric for metric in metrics if metric in probe.metrics]
            if mine and probe.timed == timed:
                found[name] = mine
        return found

    def following(self, job: Job, stage: str) -> str:
        """Return which stage measures what is left after another one; empty if nothing is."""
        if stage != "measure" and self.of(job, timed=False):
            return "measure"
        return "time" if self.of(job, timed=True) else ""
