"""The recorded table, searched with a study of another model at hand: a true one, or one that misleads.

`python -m benchmarks.search.recorded_warm STORE NAME` writes the earlier study's file from a store.
"""

import gzip
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.recorded import recorded
from benchmarks.search.simulation import Simulation
from hpo.search.earlier import EarlierStudy
from hpo.store.store import Store
from hpo.study import space_from_mapping
from hpo.trial import Measurement, Objective, Trial

STORIES = Path(__file__).parents[1] / "data" / "warm_stories.json.gz"
MISLEADING = "perplexity"
"""The metric whose values misleading studies have at the wrong trials."""


def warm() -> Simulation:
    """Return the recorded table with the study of another model beside it."""
    return replace(recorded(), name="recorded_warm", earlier=(stories(),))


def reversed_order() -> Simulation:
    """Return the same with the study's perplexities in reverse: what did best is said to have done worst."""
    values = _perplexities(stories())
    order = np.argsort(values)
    swapped = np.empty_like(values)
    swapped[order] = values[order[::-1]]
    return replace(recorded(), name="recorded_reversed", earlier=(_with(stories(), swapped),))


def shuffled() -> Simulation:
    """Return the same with the study's perplexities dealt out to its trials by chance."""
    values = np.random.default_rng(0).permutation(_perplexities(stories()))
    return replace(recorded(), name="recorded_shuffled", earlier=(_with(stories(), values),))


def stories() -> EarlierStudy:
    """Return the recorded study of a model that was trained on stories."""
    document = json.loads(gzip.decompress(STORIES.read_bytes()))
    return EarlierStudy(
        document["name"],
        space_from_mapping(document["space"]),
        tuple(Objective.model_validate(objective) for objective in document["objectives"]),
        tuple(Trial.from_mapping(trial) for trial in document["trials"]),
    )


def _perplexities(study: EarlierStudy) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return those of the completed trials but the dense one, which all are compared with."""
    return np.array([trial.value(MISLEADING) for trial in study.completed if not trial.is_dense])


def _with(study: EarlierStudy, values: Sequence[float] | np.ndarray[Any, Any]) -> EarlierStudy:
    others = [trial for trial in study.completed if not trial.is_dense]
    changed = [_changed(trial, float(value)) for trial, value in zip(others, values, strict=True)]
    return replace(study, trials=(study.dense, *changed))


def _changed(trial: Trial, value: float) -> Trial:
    old = trial.measurement(MISLEADING)
    assert old is not None, f"trial {trial.number} has no {MISLEADING}"
    kept = tuple(m for m in trial.measurements if m.metric != MISLEADING)
    return replace(trial, measurements=(*kept, replace(old, value=value)))


def write(url: str, name: str) -> None:
    """Write the file of a study in a store, without what says on which machine it ran."""
    with Store.open(url, read_only=True) as store:
        study, trials = store.study(name).study, store.trials(name)
    document = {
        "name": name,
        "space": study.space.to_mapping(),
        "objectives": [objective.model_dump(mode="json") for objective in study.objectives],
        "trials": [_bare(trial).to_mapping() for trial in trials],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    STORIES.write_bytes(gzip.compress(text, mtime=0))


def _bare(trial: Trial) -> Trial:
    measured = tuple(_of_no_device(m) for m in trial.measurements)
    return replace(trial, measurements=measured, worker="", stages=())


def _of_no_device(measurement: Measurement) -> Measurement:
    return replace(measurement, device="", note="")


if __name__ == "__main__":
    write(*sys.argv[1:])
