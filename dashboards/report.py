"""The report of a study: all that the dashboard shows of it, in one HTML file for somebody else to read."""

import os
import time
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import yaml
from markupsafe import Markup

from dashboards.caveats import caveats
from dashboards.document import bullets, element, figure_place, html_page, pairs, section, table
from dashboards.front import front_view, knee_of, standing_of
from dashboards.front_figure import draw_front
from dashboards.hypervolume import draw_hypervolume, hypervolume_curve
from dashboards.source import Snapshot, read
from dashboards.summary import (
    FAILURE_HEAD,
    KNEE,
    MODEL_HEAD,
    MODEL_HINT,
    failure_rows,
    glance,
    model_rows,
    progress,
)
from dashboards.trial_rows import Row, trial_rows
from hpo import __version__
from hpo.errors import HpoError, UsageError
from hpo.format import count_text, time_text, words
from hpo.store.store import Store
from hpo.study import Study


def write_report(store: Store, name: str, out: Path, *, force: bool = False) -> None:
    """Write the report of a study to `out`, whole or not at all.

    Raises:
        NotFound: there is no such study.
        UsageError: `out` exists and `force` is not set, or its directory does not.
        HpoError: it cannot be written.
    """
    _check_place(out, force)
    text = report_html(read(store, name), time.time())
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.write_text(text, "utf-8")
        part.replace(out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise HpoError(f"cannot write {out}: {error.strerror}", "name another file with --out") from None


def _check_place(out: Path, force: bool) -> None:
    if out.is_dir():
        raise UsageError(f"{out} is a directory", f"name a file in it: --out {out / 'report.html'}")
    if out.exists() and not force:
        raise UsageError(f"{out} is there already", "name another file with --out, or say --force")
    if not out.parent.is_dir():
        raise UsageError(f"there is no directory {out.parent}", "make it, or name another file with --out")


def report_html(now: Snapshot, at: float) -> str:
    """Return the report of a study as it stands; `at` is the time that it says it was written."""
    study = now.record.study
    fronts = _front_figures(now)
    curve = hypervolume_curve(study.objectives, now.trials)
    body = [
        *_head(now),
        section("Front", *map(figure_place, fronts), *_front_notes(now), _front_table(now)),
        section(
            "Hypervolume",
            figure_place("hypervolume"),
            element("p", "" if curve is None else curve.caption, "hint"),
        ),
        *_model(now),
        *_failures(now),
        section("All trials", _all_trials(now)),
        section("Study", element("pre", _yaml(study), "document")),
        section("Environment", *_environment(now)),
        element("p", f"Written {time_text(at)} by compression-hpo {__version__}.", "hint"),
    ]
    figures = fronts | {"hypervolume": draw_hypervolume(curve)}
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
        f"front-{other}": draw_front(front_view(objectives, now.trials, other, first)) for other in others
    }


def _front_notes(now: Snapshot) -> list[Markup]:
    objectives = now.record.study.objectives
    notes = ["The front is that of all objectives; each figure shows it in two of them."]
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
    return table(head, [(_called(row, knee), *_values(row, study), row["recipe"]) for row in rows])


def _called(row: Row, knee: int | None) -> str:
    names = ["knee"] if row["number"] == knee else []
    if row["recipe"] == "dense" and row["standing"] != "front":
        names.append("not on the front")
    return f"{row['number']} ({', '.join(names)})" if names else str(row["number"])


def _values(row: Row, study: Study) -> list[str]:
    return [row[f"{o.metric}_text"] or "–" for o in study.objectives]


def _model(now: Snapshot) -> list[Markup]:
    if not now.skills:
        return []
    rows = table(MODEL_HEAD, model_rows(now.skills))
    return [section("The search's model", element("p", MODEL_HINT, "hint"), rows)]


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
        for row in trial_rows(study, now.trials)
    ]
    return table((*head, "origin", "worker time", "recipe"), rows)


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
