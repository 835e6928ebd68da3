"""Choose a trial: by number, by limits, or the knee."""

import re
from collections.abc import Sequence

from hpo.errors import NotFound, UsageError
from hpo.metric import metric
from hpo.pareto import knee
from hpo.problem import losses
from hpo.store.store import Store
from hpo.study import Study
from hpo.trial import Trial, TrialState

_LIMIT = re.compile(r"\s*([a-z_]+)\s*(<=|>=)\s*([-+0-9.eE]+)\s*")


def parse_limit(text: str) -> tuple[str, float]:
    """Return metric and bound of ``metric<=value`` (``>=`` for a metric where higher is better).

    Raises:
        UsageError: it is no such thing, or there is no such metric.
    """
    found = _LIMIT.fullmatch(text)
    if not found:
        raise UsageError(f"--limit {text!r}", "write it as metric<=value, e.g. 'weight_memory<=1000000'")
    about = metric(found.group(1))
    wanted = "<=" if about.better == "lower" else ">="
    if found.group(2) != wanted:
        raise UsageError(f"--limit {text!r}", f"{about.name} is better {about.better}: use {wanted}")
    try:
        return about.name, float(found.group(3))
    except ValueError:
        raise UsageError(f"--limit {text!r}", f"{found.group(3)!r} is no number") from None


def within(trials: Sequence[Trial], limits: Sequence[str]) -> list[Trial]:
    """Return the trials that keep every limit; one that lacks the metric does not."""
    bounds = [parse_limit(text) for text in limits]
    return [t for t in trials if all(_keeps(t, name, bound) for name, bound in bounds)]


def _keeps(trial: Trial, name: str, bound: float) -> bool:
    value = trial.value(name)
    if value is None:
        return False
    return value <= bound if metric(name).better == "lower" else value >= bound


def chosen(store: Store, study: Study, trial: int | None, limits: Sequence[str]) -> Trial:
    """Return the trial with a number, else the knee of the front under `limits`.

    Raises:
        NotFound: no member of the front keeps the limits, or there is no front.
        UsageError: the trial is not completed.
    """
    if trial is not None:
        found = store.trial(study.name, trial)
        if found.state is not TrialState.COMPLETED:
            raise UsageError(
                f"trial {trial} of {study.name!r} is {found.state}"
                + (f": {found.message}" if found.message else ""),
                f"choose a completed one: hpo front {study.name}",
            )
        return found
    front = store.front(study.name)
    members = [] if front is None else [store.trial(study.name, number) for number in front.members]
    if not members:
        raise NotFound(f"study {study.name!r} has no front yet", f"see hpo status {study.name}")
    kept = within(members, limits)
    if not kept:
        names = [parse_limit(text)[0] for text in limits]
        best = ", ".join(
            f"{name} {min(v for t in members if (v := t.value(name)) is not None):.6g}"
            for name in names
            if any(t.value(name) is not None for t in members)
        )
        raise NotFound(
            f"no member of the front of {study.name!r} keeps {' and '.join(limits)}",
            f"the lowest of each on the front: {best or 'not measured in this study'}",
        )
    return kept[knee(losses(study.objectives, kept))]
