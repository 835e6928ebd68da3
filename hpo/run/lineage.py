"""Which finished trial a healing may start from: the nearest one that was healed in the same way."""

from collections.abc import Sequence

import numpy as np

from hpo.problem import Problem
from hpo.space import Candidate
from hpo.trial import Trial, TrialState

PARENT = "heal_parent"
"""The note of a trial whose healing started from another's factors: that one's number."""

_SAME = ("train", "embed", "factorise", "factorise.sites")
"""What must agree for factors of one to fit the other."""


def wants_parent(candidate: Candidate) -> bool:
    """Whether a candidate asks to start where another healing ended."""
    return candidate.values.get("heal.start") == "nearest"


def parent_of(problem: Problem, trials: Sequence[Trial], candidate: Candidate) -> Trial | None:
    """Return the completed, healed trial whose plan is nearest by its features; None if there is none.

    Of equally near ones the first. The answer depends on what is finished by now, so it is stored with the
    trial.
    """
    if not wants_parent(candidate):
        return None
    able = [trial for trial in trials if _fits(trial, candidate)]
    if not able:
        return None
    features = problem.preview([candidate, *(trial.candidate for trial in able)]).features
    distances = np.linalg.norm(features[1:] - features[0], axis=1)
    return able[int(np.argmin(np.nan_to_num(distances, nan=np.inf)))]


def _fits(trial: Trial, candidate: Candidate) -> bool:
    theirs, ours = trial.candidate.values, candidate.values
    healed = trial.state is TrialState.COMPLETED and trial.notes.get("heal_kept") == 1.0
    return healed and all(theirs.get(name) == ours.get(name) for name in _SAME)
