"""Where a search begins."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hpo.problem import Preview, Problem
from hpo.search.sobol import spread
from hpo.search.start import opening
from hpo.space import Candidate, Choice, SearchSpace
from hpo.trial import Objective, Trial
from tests.search.problems import plan_of

SPACE = SearchSpace.of([("size", Choice(choices=tuple(range(1, 33)))), ("waste", Choice(choices=(0, 1, 2)))])
OBJECTIVES = (Objective(metric="perplexity"), Objective(metric="weight_memory"))


def _preview(candidates: Sequence[Candidate]) -> Preview:
    """Damage falls with size, and waste adds bytes for nothing: on the guessed front nothing is wasted."""
    sizes = np.array([float(c.values["size"]) for c in candidates]).reshape(-1, 1)
    waste = np.array([float(c.values["waste"]) for c in candidates]).reshape(-1, 1)
    plans = tuple(plan_of(c.items) for c in candidates)
    return Preview(
        exact=sizes * (1 + waste),
        features=np.empty((len(candidates), 0)),
        plans=plans,
        refusals=("",) * len(candidates),
        guesses=1 / sizes,
    )


PROBLEM = Problem(SPACE, OBJECTIVES, ("weight_memory",), _preview)


def _trial(number: int, size: int, waste: int = 0) -> Trial:
    candidate = Candidate.of({"size": size, "waste": waste})
    return Trial(number, candidate, "test", plan_of(candidate.items))


def test_promising_candidates_are_on_the_guessed_front_and_far_from_what_was_tried() -> None:
    # By hand: bytes 1, 2 (half of them wasted) and 32 are tried. Halfway between 2 and 32 in logarithms is 8.
    history = [_trial(0, 1), _trial(1, 32), _trial(2, 1, 1)]
    (found,) = opening(PROBLEM, history, 1, seed=0)
    assert found.values == {"size": 8, "waste": 0}


def test_every_other_candidate_is_quasi_random() -> None:
    history = [_trial(0, 1), _trial(1, 32)]
    (found,) = opening(PROBLEM, history, 1, seed=5)
    assert [found] == spread(PROBLEM, history, 1, seed=5)


def test_several_at_once_are_those_that_would_come_one_by_one() -> None:
    history = [_trial(0, 1)]
    at_once = opening(PROBLEM, history, 5, seed=2)
    for number in range(1, 6):
        (candidate,) = opening(PROBLEM, history, 1, seed=2)
        history.append(Trial(number, candidate, "test", plan_of(candidate.items)))
    assert at_once == [trial.candidate for trial in history[1:]]
    assert len(set(at_once)) == 5


def test_a_problem_without_guesses_begins_quasi_randomly() -> None:
    bare = replace(PROBLEM, preview=lambda c: replace(_preview(c), guesses=None))
    history = [_trial(0, 1)]
    assert opening(bare, history, 1, seed=2) == spread(bare, history, 1, seed=2)


def test_a_space_that_is_used_up_ends_the_start() -> None:
    history = [
        _trial(number, size, waste)
        for number, (size, waste) in enumerate((s, w) for s in range(1, 33) for w in range(3))
    ]
    assert opening(PROBLEM, history[:-1], 3, seed=0) == [history[-1].candidate]
