"""What a search has brought so far and what more of it would bring, computed once for all who look."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

import plotly.graph_objects as go

from dashboards.hypervolume import Against, HypervolumeCurve, draw_hypervolume, hypervolume_curve
from dashboards.outlook import Basis, NoOutlook, Outlook, amounts, basis_of, outlook
from dashboards.remaining import Remaining, remaining_of
from dashboards.source import Snapshot
from hpo.format import count_text, duration_text, number_text, percent_text
from hpo.study import Study
from hpo.trial import Trial

DEFAULT_MORE = "times-1"

_MOST_STUDIES = 8


@dataclass(frozen=True)
class SearchProgress:
    """The hypervolume of a study as it went on, and what an outlook can stand on."""

    curve: HypervolumeCurve | None
    basis: Basis | NoOutlook

    def outlook(self, left: Remaining, more: str) -> Outlook | NoOutlook:
        """Return what an amount of work, a key of `amounts`, would buy; the default where there is no such
        amount."""
        if isinstance(self.basis, NoOutlook):
            return self.basis
        known = amounts(self.basis, left)
        return outlook(self.basis, known.get(more, known[DEFAULT_MORE])[1])

    def options(self, left: Remaining) -> dict[str, str]:
        """Return the amounts of work that may be asked for: key -> words."""
        if isinstance(self.basis, NoOutlook):
            return {}
        return {key: said for key, (said, _) in amounts(self.basis, left).items()}

    def figure(self, left: Remaining, against: Against, more: str) -> go.Figure:
        """Return the curve over an axis, with the end of the budget and the outlook where they are known."""
        curve = self.curve
        if curve is None or not curve.values:
            return draw_hypervolume(curve, against)
        ahead = self.outlook(left, more)
        band = None if isinstance(ahead, NoOutlook) else ahead.band(against, curve.along(against)[-1])
        return draw_hypervolume(curve, against, left.end(curve, against), band)

    @property
    def words(self) -> str:
        """Where the curve ends, as a sentence."""
        curve = self.curve
        if curve is None or not curve.values:
            return ""
        work = (
            f"{number_text(curve.hours[-1], 3)} GPU-hours"
            if curve.gpus
            else f"{duration_text(3600 * curve.hours[-1])} of work"
        )
        return (
            f"The front covers {percent_text(curve.last)} of the box after "
            f"{count_text(len(curve.values), 'finished trial')}, {work} and "
            f"{duration_text(curve.seconds[-1])} by the clock."
        )


def progress_of(now: Snapshot) -> SearchProgress:
    """Return the progress of a study as it stands."""
    study = now.record.study
    curve = hypervolume_curve(study.objectives, now.trials, now.spent.gpus)
    return SearchProgress(curve, basis_of(study, now.trials, now.spent))


def left_of(now: Snapshot) -> Remaining:
    """Return what is left of the budget of a study as it stands."""
    finished = sum(trial.state.is_final for trial in now.trials)
    return remaining_of(now.record.study.budget, now.spent, finished)


@dataclass
class KeptProgress:
    """The progress of the studies that were looked at last, each for the trials it was computed of. Threads
    may share it."""

    _kept: dict[str, tuple[Study, Sequence[Trial], SearchProgress]] = field(default_factory=dict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def of(self, now: Snapshot) -> SearchProgress:
        name = now.record.study.name
        study, trials = now.record.study, now.trials
        with self._lock:
            kept = self._kept.pop(name, None)
            if kept is None or kept[1] is not trials or kept[0] != study:
                kept = (study, trials, progress_of(now))
            self._kept[name] = kept  # the last one looked at comes last
            while len(self._kept) > _MOST_STUDIES:
                del self._kept[next(iter(self._kept))]
        return kept[2]
