"""From a store and an address to everything that the page of a comparison shows."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from dashboards.attainment import FEWEST
from dashboards.comparison import MOST, Comparison, Run, common_box, common_objectives, compare, run_of
from dashboards.comparison_caveats import comparison_caveats
from dashboards.comparison_figure import FrontsView, fronts_view
from dashboards.comparison_view import CompareView
from dashboards.source import Snapshot, StudySource
from hpo.errors import HpoError, UsageError
from hpo.study import Study
from hpo.trial import Objective


@dataclass(frozen=True)
class Compared:
    """Studies side by side, or why they are not."""

    view: CompareView
    """With what the address left out."""
    troubles: tuple[HpoError, ...]
    """Studies that are not there or cannot be compared, with what to do."""
    objectives: tuple[Objective, ...] = ()
    comparison: Comparison | None = None
    fronts: FrontsView | None = None
    """None below two objectives."""
    caveats: tuple[str, ...] = ()
    most: float = 0.0
    """What the study has spent that has spent most, in what is cut by."""
    matched: float = 0.0
    """The most that all have spent."""
    seen: str = ""
    """Differs whenever a study does."""


class _Runs:
    """The runs of a store's studies, kept while their trials stay what they are."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, tuple[str, ...]], tuple[str, Run]] = {}

    def of(self, now: Snapshot, objectives: Sequence[Objective]) -> Run:
        study = now.record.study
        key = (study.name, tuple(o.metric for o in objectives))
        revision, run = self._kept.get(key, ("", None))
        if run is None or revision != now.revision:
            run = run_of(study, now.trials, objectives)
            self._kept[key] = (now.revision, run)
        return run


_RUNS: WeakKeyDictionary[StudySource, _Runs] = WeakKeyDictionary()


def seen_of(source: StudySource, names: Sequence[str]) -> str:
    """Return what changes whenever one of the studies does, or comes or goes."""
    now = "\n".join(_revision(source, name) for name in names[:MOST])
    return hashlib.sha256(now.encode("utf-8", "replace")).hexdigest()[:16]


def _revision(source: StudySource, name: str) -> str:
    try:
        return source.snapshot(name).revision
    except HpoError as error:
        return error.message


def compared(source: StudySource, view: CompareView) -> Compared:
    """Return the studies of a view side by side; what stands against it is among the troubles."""
    seen = seen_of(source, view.names)
    found, troubles = _found(source, view.names[:MOST])
    if len(view.names) > MOST:
        more = len(view.names) - MOST
        troubles.append(
            UsageError(f"{more} more could not be told apart in one figure: these are the first {MOST}", "")
        )
    try:
        objectives = common_objectives([now.record.study for now in found]) if found else ()
    except UsageError as error:
        return Compared(view, (*troubles, error), seen=seen)
    runs = [_RUNS.setdefault(source, _Runs()).of(now, objectives) for now in found]
    return replace(
        _side_by_side(view, [now.record.study for now in found], runs, objectives),
        troubles=tuple(troubles),
        seen=seen,
    )


def _found(source: StudySource, names: Sequence[str]) -> tuple[list[Snapshot], list[HpoError]]:
    found: list[Snapshot] = []
    troubles: dict[str, HpoError] = {}
    for name in names:
        try:
            found.append(source.snapshot(name))
        except HpoError as error:
            troubles.setdefault(error.message, error)  # of a store that is gone every name says the same
    return found, list(troubles.values())


def _side_by_side(
    view: CompareView, studies: Sequence[Study], runs: Sequence[Run], objectives: tuple[Objective, ...]
) -> Compared:
    if not runs:
        return Compared(view, ())
    spent = [run.spent(view.cut) for run in runs]
    most, matched = max(spent), min(spent)
    at = matched if view.at is None else min(view.at, most)
    cut = [run.cut(view.cut, at) for run in runs]
    # The box is that of all trials: it must not move while the cut does.
    box = common_box(runs)
    metrics = [o.metric for o in objectives]
    x, y = view.axes(metrics)
    bands = view.seeds and len(runs) >= FEWEST
    return Compared(
        view=replace(view, x=x, y=y, at=None if view.cut == "all" else at, seeds=view.seeds),
        troubles=(),
        objectives=objectives,
        comparison=compare(cut, box),
        fronts=fronts_view(cut, objectives, box, x, y, bands=bands) if x != y else None,
        caveats=comparison_caveats(studies, runs, cut=view.cut != "all"),
        most=most,
        matched=matched,
    )
