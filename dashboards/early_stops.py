"""Trials that were stopped early: how many, after which stage, why, and about what that saved."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from hpo.format import count_text, duration_text, percent_text, words
from hpo.trial import Trial, TrialState

_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,.]*(?:e[+-]?\d+)?(?![\w])")

STAGE_HEAD = ("stopped after", "trials", "each was spared (estimate)", "saved (estimate)")
REASON_HEAD = ("reason", "trials", "the last one said")

_MOST_REASONS = 8


@dataclass(frozen=True)
class StoppedAfter:
    """The trials that were stopped after one stage."""

    stage: str
    """Empty: before any was done."""
    trials: int
    seconds: float | None
    """What the stages that such a trial was spared would have taken; None where no trial shows it."""

    @property
    def saved(self) -> float | None:
        return None if self.seconds is None else self.trials * self.seconds


@dataclass(frozen=True)
class Reason:
    """Stopped trials that were stopped in the same words, numbers aside."""

    said: str
    """With an ellipsis for each number."""
    trials: int
    last: str


@dataclass(frozen=True)
class EarlyStops:
    """What stopping trials early did for a study."""

    stopped: int
    finished: int
    """Trials that are over, stopped and failed ones included."""
    after: tuple[StoppedAfter, ...]
    reasons: tuple[Reason, ...]
    """The most frequent first."""
    spent: float
    """Seconds of work on all trials that are over."""
    judged_by: int
    """Completed trials whose stages the estimate stands on."""

    @property
    def saved(self) -> float | None:
        """Seconds of work, estimated; None where no completed trial shows what a stage takes."""
        found = [group.saved for group in self.after if group.saved is not None]
        return sum(found) if found else None

    @property
    def words(self) -> str:
        """All of it as a sentence or two."""
        if self.finished == 0:
            return "No trial has finished yet."
        if self.stopped == 0:
            return f"None of the {count_text(self.finished, 'finished trial')} was stopped early."
        share = percent_text(self.stopped / self.finished)
        said = f"{self.stopped:,} of {count_text(self.finished, 'finished trial')} ({share}) stopped early."
        if self.saved is None:
            return f"{said} What that saved can be estimated once a trial has completed."
        more = percent_text(self.saved / (self.saved + self.spent)) if self.saved else "0 %"
        return (
            f"{said} That saved about {duration_text(self.saved)} of work, {more} of what seeing all of "
            "them through would have taken. This is an estimate: for each stage that a trial was spared, "
            f"the median of what {count_text(self.judged_by, 'completed trial')} took in it, where one that "
            "did without counts as 0."
        )


def early_stops(trials: Sequence[Trial]) -> EarlyStops:
    """Return what was stopped. The estimate stands on the completed trials, without anchors if there are
    others."""
    final = [t for t in trials if t.state.is_final]
    stopped = [t for t in final if t.state is TrialState.STOPPED]
    completed = [t for t in final if t.state is TrialState.COMPLETED]
    judged = [t for t in completed if not t.origin.startswith("anchor")] or completed
    typical = _typical(judged)
    counts = Counter(_path(t) for t in stopped)
    spared = {path: _spared(path, typical) for path in counts}
    return EarlyStops(
        stopped=len(stopped),
        finished=len(final),
        after=_by_stage(counts, spared),
        reasons=_reasons(stopped),
        spent=sum(t.seconds for t in final),
        judged_by=len(judged),
    )


def _path(trial: Trial) -> tuple[str, ...]:
    return tuple(stage.stage for stage in trial.stages)


def _typical(trials: Sequence[Trial]) -> dict[str, float]:
    """Return stage -> median of the seconds that trials took in it, 0 for those that did without."""
    stages = dict.fromkeys(stage.stage for trial in trials for stage in trial.stages)
    taken = {stage: [0.0] * len(trials) for stage in stages}
    for i, trial in enumerate(trials):
        for stage in trial.stages:
            taken[stage.stage][i] += stage.seconds
    return {stage: median(seconds) for stage, seconds in taken.items()}


def _spared(path: tuple[str, ...], typical: Mapping[str, float]) -> float | None:
    if not typical:
        return None
    return sum(seconds for stage, seconds in typical.items() if stage not in path)


def _by_stage(
    counts: Mapping[tuple[str, ...], int], spared: Mapping[tuple[str, ...], float | None]
) -> tuple[StoppedAfter, ...]:
    """Put together the trials that were stopped after the same stage, whatever they had done before it."""
    found = []
    for stage in dict.fromkeys(path[-1] if path else "" for path in counts):
        paths = [path for path in counts if (path[-1] if path else "") == stage]
        trials = sum(counts[path] for path in paths)
        known = [counts[path] * seconds for path in paths if (seconds := spared[path]) is not None]
        found.append(StoppedAfter(stage, trials, sum(known) / trials if known else None))
    return tuple(found)


def _reasons(stopped: Sequence[Trial]) -> tuple[Reason, ...]:
    said = [_NUMBER.sub("…", t.message) or "nothing was said" for t in stopped]
    last = {words: t.message for words, t in zip(said, stopped, strict=True)}
    return tuple(Reason(words, count, last[words]) for words, count in Counter(said).most_common())


def stage_rows(stops: EarlyStops) -> list[tuple[str, str, str, str]]:
    """Return the table of stages, in words and digits."""
    return [
        (
            words(group.stage) or "nothing yet",
            f"{group.trials:,}",
            "–" if group.seconds is None else duration_text(group.seconds),
            "–" if group.saved is None else duration_text(group.saved),
        )
        for group in stops.after
    ]


def reason_rows(stops: EarlyStops) -> list[tuple[str, str, str]]:
    """Return the table of reasons; what is rare is put together in its last row."""
    shown = stops.reasons[:_MOST_REASONS]
    rows = [(reason.said, f"{reason.trials:,}", reason.last or "–") for reason in shown]
    if rest := stops.reasons[_MOST_REASONS:]:
        rows.append(("other", f"{sum(reason.trials for reason in rest):,}", rest[-1].last or "–"))
    return rows
