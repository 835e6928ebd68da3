"""A study changes its question without starting over: other objectives or limits, a wider space, more budget.

What was tried stays what it was. Figures that the new question needs and old trials lack are measured when
the study goes on (`hpo.run.review`), and nothing else of them is.
"""

import time
from collections.abc import Sequence

from hpo.errors import InvalidStudy, UsageError
from hpo.run.lease import take_lease
from hpo.space import Choice, Float, Int, SearchSpace
from hpo.store.store import Store
from hpo.store.values import StudyState
from hpo.study import Study
from hpo.trial import Trial

QUESTION = ("objectives", "space")
"""What of a study is its question, and may change."""

_FIXED = ("version", "name", "model", "data")
"""What makes it this study: figures of another model or another text are another study's."""


def differences(old: Study, new: Study) -> tuple[str, ...]:
    """Return the top-level keys of two studies' documents that are not the same."""
    before, after = old.to_mapping(), new.to_mapping()
    return tuple(key for key in before if before[key] != after[key])


def check_same_question(stored: Study, given: Study, name: str) -> None:
    """Refuse to go on with a stored study as if it asked what a file, called `name`, asks.

    Raises:
        UsageError: they differ in what a study is; budget, search and run may differ.
    """
    told = [key for key in differences(stored, given) if key in (*_FIXED, *QUESTION)]
    if told:
        raise UsageError(
            f"{name} is not what study {stored.name!r} asks: {', '.join(told)} differ",
            f"go on with it as it is: hpo resume {stored.name}; change its question: "
            f"hpo amend {stored.name} {name}; or launch another, with --name",
        )


def check_amendment(old: Study, new: Study, trials: Sequence[Trial]) -> None:
    """Refuse a change that would make another study of it, or leave trials outside the space.

    Args:
        trials: all there are so far.

    Raises:
        InvalidStudy: with the path, in the new document, of what may not change so.
    """
    for key in _FIXED:
        if getattr(old, key) != getattr(new, key):
            raise InvalidStudy(
                f"{key} of study {old.name!r} cannot change", "launch a new study, with --name", (key,)
            )
    _check_budget(old, new)
    _check_wider(old.space, new.space)
    for trial in trials:
        candidate = trial.candidate
        if old.space.contains(candidate) and not new.space.contains(candidate):
            raise InvalidStudy(
                f"trial {trial.number} ({candidate}) is no candidate of the new space",
                "a parameter that is added needs a `when` under which no trial lacks it",
                ("space",),
            )


def _check_budget(old: Study, new: Study) -> None:
    for key, before in old.budget:
        after = getattr(new.budget, key)
        if before is not None and after is not None and after < before:
            raise InvalidStudy(
                f"budget.{key} is {after:g}, below the budget of {before:g}",
                "the budget counts all that is spent; it can only be raised",
                ("budget", key),
            )


def _check_wider(old: SearchSpace, new: SearchSpace) -> None:
    for name, before in old.parameters.items():
        where = ("space", name)
        after = new.parameters.get(name)
        if after is None:
            raise InvalidStudy(f"parameter {name!r} is gone", "a space may only become wider", where)
        if isinstance(before, Choice) or isinstance(after, Choice):
            lost = _lost_choices(before, after)
        else:
            lost = after.low > before.low or after.high < before.high
        if lost:
            raise InvalidStudy(
                f"parameter {name!r} has lost some of what it could be: {before.describe()}, "
                f"now {after.describe()}",
                "a space may only become wider",
                where,
            )


def _lost_choices(before: Float | Int | Choice, after: Float | Int | Choice) -> bool:
    if not isinstance(before, Choice) or not isinstance(after, Choice):
        return True
    return not set(before.choices) <= set(after.choices)


def amend(store: Store, new: Study, why: str) -> tuple[str, ...]:
    """Change a stored study that no coordinator runs; return the keys of what has changed.

    A study that was finished can be resumed afterwards.

    Raises:
        UsageError: nothing would change, or something that may not.
        StoreError: a coordinator runs it.
    """
    record = store.study(new.name)
    changed = differences(record.study, new)
    if not changed:
        raise UsageError(f"study {new.name!r} is already as that", f"go on with it: hpo resume {new.name}")
    check_amendment(record.study, new, store.trials(new.name))
    lease = take_lease(store, new.name)
    try:
        store.replace_study(lease, new, why, time.time())
        if record.state in (StudyState.FINISHED, StudyState.FAILED):
            message = f"amended: {', '.join(changed)} (it was {record.state}: {record.message})"
            store.set_state(lease, StudyState.STOPPED, message, time.time())
    finally:
        store.release(lease, time.time())
    return changed
