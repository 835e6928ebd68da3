"""The report of a study: all that the dashboard shows of it, in one HTML file for somebody else to read."""

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import yaml
from markupsafe import Markup

from dashboards.caveats import caveats
from dashboards.document import (
    Part,
    bullets,
    element,
    figure_place,
    folding,
    html_page,
    pairs,
    section,
    table,
)
from dashboards.downloads import encoded, kind_of
from dashboards.front import front_view, knee_of, standing_of
from dashboards.front_figure import draw_front
from dashboards.hypervolume import draw_hypervolume, hypervolume_curve
from dashboards.report_members import chosen, members
from dashboards.report_search import search_parts
from dashboards.scatter_matrix import draw_scatter_matrix, scatter_matrix
from dashboards.source import Snapshot, read
from dashboards.summary import FAILURE_HEAD, KNEE, failure_rows, glance, progress
from dashboards.trial_details import TrialDetails, read_details
from dashboards.trial_rows import Row, trial_rows
from dashboards.whole_files import check_places, write_whole
from hpo import __version__
from hpo.errors import UsageError
from hpo.format import count_text, time_text, words
from hpo.store.store import Store
from hpo.study import Study
from hpo.trial import TrialState

_MOST_MARKS = 1000
"""Trials in a figure of the front, beside the front itself."""
_LONG = 60
"""A table of more rows is folded away."""
_MOST_ROWS = 1000
"""Trials in the table of all."""


def write_files(
    store: Store, name: str, out: Path | None = None, data: Sequence[Path] = (), *, force: bool = False
) -> None:
    """Write what is known of a study to files: the report to `out`, its trials to each of `data`.

    Every file is written whole or not at all, and none where another cannot be made.

    Args:
        data: its ending says what a file is to be; see `dashboards.downloads.KINDS`.

    Raises:
        NotFound: there is no such study.
        UsageError: no file is named, one exists and `force` is not set, its directory does not, or its ending
            says nothing.
        Unsupported: Parquet is asked for, and what writes it is not installed.
        HpoError: one cannot be written.
    """
    if out is None and not data:
        raise UsageError("no file is named", "give --out FILE.html for the report, or --data FILE.csv")
    named = [] if out is None else [("--out", out)]
    check_places([*named, *(("--data", path) for path in data)], force=force)
    kinds = {path: kind_of(path) for path in data}
    now = read(store, name)
    contents = {path: encoded(now, kind).content for path, kind in kinds.items()}
    if out is not None:
        details = {t.number: read_details(store, now.record.study, now.trials, t.number) for t in chosen(now)}
        contents[out] = report_html(now, time.time(), details).encode("utf-8", "replace")
    write_whole(contents)


def report_html(now: Snapshot, at: float, details: Mapping[int, TrialDetails] | None = None) -> str:
    """Return the report of a study as it stands.

    Args:
        at: the time that it says it was written.
        details: of front members, by number; without them the report does not go into any.
    """
    study = now.record.study
    fronts = _front_figures(now)
    matrix = _matrix(now)
    curve = hypervolume_curve(study.objectives, now.trials)
    said = "" if curve is None else curve.caption
    inside = members(now, details or {})
    search = search_parts(now)
    body = [
        *_head(now),
        section("Front", *_front_places(fronts), *_front_notes(now), _front_table(now)),
        *matrix.markup,
        section(
            "Hypervolume",
            figure_place("hypervolume", f"hypervolume over finished trials. {said}"),
            element("p", said, "hint"),
        ),
        *inside.markup,
        *[markup for part in search for markup in part.markup],
        *_failures(now),
        section("All trials", _all_trials(now)),
        section("Study", element("pre", _yaml(study), "document")),
        section("Environment", *_environment(now)),
        element("p", f"Written {time_text(at)} by compression-hpo {__version__}.", "hint"),
    ]
    figures = {**fronts, **matrix.figures, "hypervolume": draw_hypervolume(curve), **inside.figures}
    for part in search:
        figures |= part.figures
    return html_page(f"{study.name} – compression study", body, figures)


def _head(now: Snapshot) -> list[Markup]:
    study, record = now.record.study, now.record
    state = f"{record.state}: {record.message}" if record.message else str(record.state)
    parts = [
        element("h1", study.name),
        element("p", study.question, "question"),
        element("p", f"{state.capitalize()}, {progress(now)[2]}.", "hint"),
        pairs(glance(now), "tiles"),
    ]
    said = caveats(study.objectives, now.trials)
    return [*parts, bullets(said, "caveats")] if said else parts


def _front_figures(now: Snapshot) -> dict[str, go.Figure]:
    """Return the front in the first objective and each of the others, by name."""
    objectives = now.record.study.objectives
    first, *others = [o.metric for o in objectives]
    return {
        f"front-{other}": draw_front(front_view(objectives, now.trials, other, first, _MOST_MARKS))
        for other in others
    }


def _front_places(fronts: Mapping[str, go.Figure]) -> list[Markup]:
    """Return where the figures of the front go; the table of its members says what they show."""
    return [
        figure_place(name, f"the front in two objectives, {words(name.removeprefix('front-'))} across")
        for name in fronts
    ]


def _matrix(now: Snapshot) -> Part:
    """Return the section of the scatter matrix; nothing where there is none."""
    matrix = scatter_matrix(now.record.study.objectives, now.trials)
    if matrix is None:
        return Part()
    said = "Marks that stand for the same trial stand in every panel; hover tells which."
    if matrix.left_out:
        said += f" {count_text(matrix.left_out, 'trial')} left out, so that the rest can be seen."
    label = f"scatter plots of all {matrix.pairs} pairs of objectives"
    place = figure_place("matrix", label, is_wide=True)
    parts = section("All pairs of objectives", place, element("p", said, "hint"))
    return Part((parts,), {"matrix": draw_scatter_matrix(matrix)})


def _front_notes(now: Snapshot) -> list[Markup]:
    objectives = now.record.study.objectives
    notes = ["The front is that of all objectives; each figure shows it in two of them."]
    marks = sum(t.state is TrialState.COMPLETED for t in now.trials)
    if marks > _MOST_MARKS:
        notes.append(f"Beside the front and the anchors about {_MOST_MARKS:,} of {marks:,} trials are drawn.")
    if len(objectives) == 1:
        notes = ["With one objective there is no trade-off to draw: the front is the best trial."]
    if knee_of(objectives, now.trials) is not None:
        notes.append(KNEE)
    return [element("p", " ".join(notes), "hint")]


def _front_table(now: Snapshot) -> Markup:
    study = now.record.study
    knee = knee_of(study.objectives, now.trials)
    standings = standing_of(study.objectives, now.trials)
    rows = [
        row
        for row, trial in zip(trial_rows(study, now.trials), now.trials, strict=True)
        if standings.get(trial.number) == "front" or trial.is_dense
    ]
    if not rows:
        return element("p", "No trial is within all limits yet.", "hint")
    rows.sort(key=lambda row: row[study.objectives[0].metric] or 0.0)
    head = ("trial", *(words(o.metric) for o in study.objectives), "recipe")
    found = table(head, [(_called(row, knee), *_values(row, study), row["recipe"]) for row in rows])
    return found if len(rows) <= _LONG else folding(f"All {len(rows)} of them as a table", found)


def _called(row: Row, knee: int | None) -> str:
    names = ["knee"] if row["number"] == knee else []
    if row["recipe"] == "dense" and row["standing"] != "front":
        names.append("not on the front")
    return f"{row['number']} ({', '.join(names)})" if names else str(row["number"])


def _values(row: Row, study: Study) -> list[str]:
    return [row[f"{o.metric}_text"] or "–" for o in study.objectives]


def _failures(now: Snapshot) -> list[Markup]:
    rows = failure_rows(now.trials)
    return [section("Failures", table(FAILURE_HEAD, rows))] if rows else []


def _all_trials(now: Snapshot) -> Markup:
    study = now.record.study
    if not now.trials:
        return element("p", "There is none yet.", "hint")
    head = ("trial", "state", "standing", *(words(o.metric) for o in study.objectives))
    rows = [
        (
            str(row["number"]),
            row["state"],
            row["standing"] or "–",
            *_values(row, study),
            row["origin"],
            row["seconds_text"] or "–",
            row["recipe"],
        )
        for row in trial_rows(study, now.trials)[-_MOST_ROWS:]
    ]
    said = Markup()
    if len(now.trials) > _MOST_ROWS:
        said = element(
            "p",
            f"The last {_MOST_ROWS:,} of {len(now.trials):,}. All of them as a table: "
            f"hpo report {shlex.quote(study.name)} --data trials.csv",
            "hint",
        )
    found = table((*head, "origin", "worker time", "recipe"), rows)
    return said + (found if len(rows) <= _LONG else folding(count_text(len(rows), "trial"), found))


def _environment(now: Snapshot) -> list[Markup]:
    devices = sorted({m.device for t in now.trials for m in t.measurements if m.device})
    known = {
        **now.record.environment,
        "measured on": ", ".join(devices) or "–",
        "study hash": now.record.study.hash,
        "launched": time_text(now.record.created_at),
        "last changed": time_text(now.record.updated_at),
        "trials": count_text(len(now.trials), "trial"),
    }
    return [pairs(known, "facts")]


def _yaml(study: Study) -> str:
    """Return the study as a file that asks the same question; what was left open stays out."""
    return yaml.safe_dump(_given(study.to_mapping()), sort_keys=False, allow_unicode=True)


def _given(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: _given(value) for key, value in document.items() if value is not None}
    return [_given(value) for value in document] if isinstance(document, list) else document
