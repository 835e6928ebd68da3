"""A study in a few figures and words, as its page and its report show it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from dashboards.front import Standing, standing_of
from dashboards.hypervolume import hypervolume_curve
from dashboards.source import Snapshot
from hpo.format import count_text, duration_text, percent_text, words
from hpo.skill import Skill
from hpo.trial import Trial, TrialState

MODEL_HEAD = ("objective", "trials judged", "error", "inside its 90 % interval")
MODEL_HINT = (
    "What the model says of each trial within the limits when that trial is kept from it. Error: root mean "
    "square over the spread of the outcomes; 0 is perfect, 1 no better than guessing their mean."
)
FAILURE_HEAD = ("cause", "trials", "the last one said")
KNEE = "The knee is the member of the front nearest to its ideal point, all objectives scaled to the front."


def glance(now: Snapshot) -> dict[str, str]:
    """Return label -> figure of what one wants to know first."""
    size, share = _front(now)
    counts = Counter(t.state for t in now.trials)
    return {
        "on the front": count_text(size, "trial"),
        "hypervolume": "not known yet" if share is None else percent_text(share),
        "running": str(counts[TrialState.RUNNING]),
        "failed": str(counts[TrialState.FAILED]),
        "worker time": duration_text(now.spent.work.seconds),
        "coordinator time": duration_text(3600 * now.record.hours),
    }


def _front(now: Snapshot) -> tuple[int, float | None]:
    """Return the size of the front and its share of the box: as the coordinator keeps them, else computed."""
    if now.front is not None:
        return len(now.front.members), now.front.hypervolume
    objectives = now.record.study.objectives
    curve = hypervolume_curve(objectives, now.trials)
    size = sum(s is Standing.FRONT for s in standing_of(objectives, now.trials).values())
    return size, None if curve is None else curve.last


def front_trials(now: Snapshot) -> list[Trial] | None:
    """Return the members of the front as the coordinator keeps it; None where it has stored none."""
    if now.front is None:
        return None
    members = set(now.front.members)
    return [trial for trial in now.trials if trial.number in members]


def progress(now: Snapshot) -> tuple[float, float, str]:
    """Return how much is used of the budget that is nearest to its end, how much there is of it, and what is
    spent of every budget in words."""
    budget = now.record.study.budget
    over = replace(now.spent, trials=sum(t.state.is_final for t in now.trials))
    fullest = max(over.uses(budget), key=lambda use: use.share)
    return fullest.spent, fullest.of, over.text(budget)


def model_rows(skills: Sequence[Skill]) -> list[tuple[str, str, str, str]]:
    """Return objective, trials judged, error and coverage of each model, in words and digits."""
    return [
        (words(skill.metric), str(skill.trials), f"{skill.error:.2f}", percent_text(skill.coverage))
        for skill in skills
    ]


def failure_rows(trials: Sequence[Trial]) -> list[tuple[str, str, str]]:
    """Return cause, number of trials and the words of the last one; the most frequent cause first."""
    causes = Counter(t.cause for t in trials if t.cause is not None)
    last = {t.cause: t for t in trials}
    return [(words(cause), str(count), last[cause].message or "–") for cause, count in causes.most_common()]
