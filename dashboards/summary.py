"""A study in a few figures and words, as its page and its report show it."""

from collections import Counter
from collections.abc import Sequence

from dashboards.front import Standing, standing_of
from dashboards.hypervolume import hypervolume_curve
from dashboards.source import Snapshot
from hpo.format import count_text, duration_text, percent_text, words
from hpo.trial import Trial

FAILURE_HEAD = ("cause", "trials", "the last one said")
KNEE = "The knee is the member of the front nearest to its ideal point, all objectives scaled to the front."


def glance(now: Snapshot) -> dict[str, str]:
    """Return label -> figure of what one wants to know first."""
    objectives = now.record.study.objectives
    curve = hypervolume_curve(objectives, now.trials)
    front = [s for s in standing_of(objectives, now.trials).values() if s is Standing.FRONT]
    counts = Counter(str(t.state) for t in now.trials)
    return {
        "on the front": count_text(len(front), "trial"),
        "hypervolume": "not known yet" if curve is None else percent_text(curve.last),
        "running": str(counts["running"]),
        "failed": str(counts["failed"]),
        "worker time": duration_text(sum(t.seconds for t in now.trials)),
        "coordinator time": duration_text(3600 * now.record.hours),
    }


def progress(now: Snapshot) -> tuple[float, float, str]:
    """Return how much of the budget is used, how much there is, and both in words."""
    budget = now.record.study.budget
    done = sum(t.state.is_final for t in now.trials)
    if budget.trials is not None:
        return done, budget.trials, f"{done} of {count_text(budget.trials, 'trial')}"
    hours = budget.hours or 0.0
    spent = duration_text(3600 * now.record.hours)
    return now.record.hours, hours, f"{spent} of {duration_text(3600 * hours)}"


def failure_rows(trials: Sequence[Trial]) -> list[tuple[str, str, str]]:
    """Return cause, number of trials and the words of the last one; the most frequent cause first."""
    causes = Counter(t.cause for t in trials if t.cause is not None)
    last = {t.cause: t for t in trials}
    return [(words(cause), str(count), last[cause].message or "–") for cause, count in causes.most_common()]
