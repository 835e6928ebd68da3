"""Several coordinators, each of a study of its own, in one store at the same time."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpo.store.store import Store
from hpo.store.values import StudyState
from tests.run import benches
from tests.run.conftest import coordinate, in_process

NAMES = ("one", "two", "three", "four")


def finished(url: str, name: str) -> StudyState:
    """Run a study to its end over a connection of its own."""
    study = benches.study(trials=10, name=name)
    with Store.open(url) as store:
        return coordinate(store, study, in_process(study)).state


def run_together(url: str) -> None:
    with Store.open(url):
        pass  # the schema is there before they begin
    with ThreadPoolExecutor(len(NAMES)) as pool:
        states = list(pool.map(lambda name: finished(url, name), NAMES))
    assert states == [StudyState.FINISHED] * len(NAMES)
    with Store.open(url, read_only=True) as store:
        assert store.faults(time.time()) == []
        for name in NAMES:
            assert [t.number for t in store.trials(name)] == list(range(10))
            ids = [event.id for event in store.events(name)]
            assert ids == sorted(ids)


@pytest.mark.postgres
def test_studies_run_side_by_side_on_postgresql(postgres_url: str) -> None:
    run_together(postgres_url)


def test_studies_run_side_by_side_in_one_file(tmp_path: Path) -> None:
    run_together(f"sqlite:///{tmp_path}/store.db")
