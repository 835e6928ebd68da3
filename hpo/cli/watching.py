"""`hpo status --watch`: a view that stays current on a terminal, a line for each change in a pipe."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from hpo.cli.options import emit
from hpo.cli.tables import coordinator_text, phase_text, studies_table, study_status, trials_text
from hpo.format import words
from hpo.store.store import Store
from hpo.store.values import StudyState
from hpo.watch.line import stamp
from hpo.watch.standing import Standing, Standings

_LOOK_S = 2.0
"""How often the store is looked at."""


def standing_mapping(standing: Standing) -> dict[str, Any]:
    """Return where a study stands, for programs."""
    record, front, holder = standing.record, standing.front, standing.holder
    return {
        "study": standing.name,
        "state": str(record.state),
        "message": record.message,
        "requested": str(record.requested),
        "counts": {str(state): n for state, n in standing.counts.items()},
        "budget": record.study.budget.model_dump(),
        "hours": record.hours,
        "spent": standing.spent.to_mapping(),
        "refining": bool(phase_text(standing)),
        "failures": dict(standing.causes),
        "retries": dict(standing.retries),
        "model": [skill.to_mapping() for skill in standing.skills],
        "hypervolume": None if front is None else front.hypervolume,
        "front": [] if front is None else list(front.members),
        "coordinator": None if holder is None else _lease(standing),
        "running": [t.to_mapping() | {"silent_s": standing.silent_s(t)} for t in standing.running],
    }


def _lease(standing: Standing) -> dict[str, Any]:
    assert standing.holder is not None
    holder = standing.holder
    return {
        "owner": holder.owner,
        "epoch": holder.epoch,
        "expires_at": holder.expires_at,
        "alive": standing.has_coordinator,
    }


def watch_study(
    store: Store,
    name: str,
    as_json: bool,
    *,
    stream: TextIO | None = None,
    wait: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> None:
    """Show a study until nothing more will happen to it by itself.

    Raises:
        NotFound: there is no such study.
    """
    out = sys.stdout if stream is None else stream
    standings = Standings(store, name)
    standing = standings.read(clock())
    if as_json or not out.isatty():
        _print_changes(standings, standing, as_json, out, wait, clock)
        return
    with Live(_view(standing), console=Console(file=out), auto_refresh=False) as live:
        while not standing.is_over:
            wait(_LOOK_S)
            standing = standings.read(clock())
            live.update(_view(standing), refresh=True)


def _view(standing: Standing) -> Text:
    return Text(study_status(standing))


def _print_changes(
    standings: Standings,
    standing: Standing,
    as_json: bool,
    out: TextIO,
    wait: Callable[[float], None],
    clock: Callable[[], float],
) -> None:
    """Print a line whenever something other than a clock has moved."""
    last = ""
    while True:
        line = change_line(standing)
        if line != last:
            said = json.dumps(standing_mapping(standing)) if as_json else f"{stamp(standing.at)} {line}"
            out.write(said + "\n")
            out.flush()
            last = line
        if standing.is_over:
            return
        wait(_LOOK_S)
        standing = standings.read(clock())


def change_line(standing: Standing) -> str:
    """Return where a study stands on one line, without what the clock alone moves."""
    record, front = standing.record, standing.front
    budget = record.study.budget.trials
    parts = [
        f"{standing.name} {record.state}" + (f" ({record.message})" if record.message else ""),
        trials_text(standing) + ("" if budget is None else f" of {budget}"),
    ]
    if standing.running:
        parts.append("on " + ", ".join(f"{t.worker}: {t.number}" for t in standing.running))
    parts += [f"{n} failed, {words(cause)}" for cause, n in sorted(standing.causes.items())]
    parts += [f"{n} tried again, {words(cause)}" for cause, n in sorted(standing.retries.items())]
    if front is not None and front.hypervolume is not None:
        parts.append(f"front {len(front.members)}, hypervolume {front.hypervolume:.4f}")
    if phase_text(standing):
        parts.append("refining")
    if record.requested != "none":
        parts.append(f"asked to {record.requested}")
    if not standing.has_coordinator:
        parts.append(coordinator_text(standing) if standing.holder is None else "its coordinator is gone")
    return "; ".join(parts)


def watch_studies(store: Store, as_json: bool) -> None:
    """Show every study of a store until none is running."""
    last = ""
    while True:
        studies = store.studies()
        shown = [asdict(study) for study in studies]
        text = json.dumps(shown) if as_json else studies_table(studies)
        if text != last:
            emit(_CLEAR + text if sys.stdout.isatty() and not as_json else text)
            sys.stdout.flush()
            last = text
        now = time.time()
        waiting = [s for s in studies if s.state is StudyState.CREATED or (s.lease_until or 0.0) > now]
        if not waiting:
            return
        time.sleep(_LOOK_S)


_CLEAR = "\x1b[2J\x1b[H"
