"""A store of 10,000 trials: everything is there, and questions do not multiply."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from hpo.store.store import Store
from hpo.store.values import EventKind
from tests.store.samples import METRIC_NAMES, NOW, begun, completed, fill, make_study, waiting

COUNT = 10_000


@contextmanager
def _statements() -> Iterator[list[str]]:
    """Collect what is sent to any database meanwhile."""
    sent: list[str] = []

    def collect(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        sent.append(statement)

    event.listen(Engine, "before_cursor_execute", collect)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", collect)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('big')}/store.db"
    fill(url, COUNT)
    return url


def test_ten_thousand_trials_are_listed_in_order_with_two_queries(big: str) -> None:
    with Store.open(big, read_only=True) as store:
        with _statements() as sent:
            trials = store.trials("big")
        assert [trial.number for trial in trials] == list(range(COUNT))
        assert all(tuple(m.metric for m in trial.measurements) == METRIC_NAMES for trial in trials)
        assert trials[7_777].value("perplexity") == 7_777.0
        assert len([statement for statement in sent if "FROM trial" in statement]) == 1
        assert len([statement for statement in sent if "FROM measurement" in statement]) == 1
        assert not [statement for statement in sent if "FROM plan" in statement]


def test_the_list_of_studies_takes_five_queries_however_many_there_are(big: str) -> None:
    with Store.open(big) as store:
        for number in range(5):
            store.create_study(make_study(f"more-{number}"), {}, NOW + 1)
        with _statements() as sent:
            summaries = store.studies()
    assert [summary.counts for summary in summaries] == [{"completed": COUNT}, {}, {}, {}, {}, {}]
    assert len([statement for statement in sent if statement.startswith("SELECT")]) == 5


def test_counting_trials_reads_an_index_only(big: str) -> None:
    with Store.open(big, read_only=True) as store:
        query = "EXPLAIN QUERY PLAN SELECT study_id, state, cause, count(*) FROM trial GROUP BY 1, 2, 3"
        plan = store._database.read(lambda c: c.exec_driver_sql(query).all())
    assert "USING COVERING INDEX trial_by_state" in str(plan)


def test_news_of_one_trial_loads_one_trial(tmp_path: Path) -> None:
    with Store.open(f"{tmp_path}/store.db") as store:
        lease = begun(store)
        for number in range(20):
            store.add_trial(lease, waiting(number), (), NOW)
        _, newest = store.trials_since("quick", 0)
        store.save_trial(lease, completed(11), EventKind.COMPLETED, NOW)
        changed, _ = store.trials_since("quick", newest)
    assert changed == (completed(11),)


def test_the_collector_of_garbage_is_left_as_it_was(big: str) -> None:
    with Store.open(big, read_only=True) as store:
        store.trials("big")
        assert gc.isenabled()
        gc.disable()
        try:
            store.trials("big")
            assert not gc.isenabled()
        finally:
            gc.enable()
