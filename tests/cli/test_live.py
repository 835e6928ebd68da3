"""The live table: what it says is spent is what the store says, while the study runs."""

from pathlib import Path

from rich.console import Console

from hpo.cli.live import LiveTable
from hpo.store.store import Store
from tests.run import benches
from tests.run.conftest import coordinate, in_process


def test_the_live_table_shows_what_is_spent_of_each_budget(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/study.db") as store:
        study = benches.study(budget={"trials": 5, "joules": 200})
        table = LiveTable(store, study)
        assert table._spent().trials == 0
        coordinate(store, study, in_process(study, joules=5.0), table.tell)
        console = Console(width=160)
        with console.capture() as shown:
            console.print(table._render())
    assert "study toy: 5 trials over; spent 5 of 5 trials, 75 of 200 J" in shown.get()


def test_it_counts_what_an_earlier_run_has_spent(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/study.db") as store:
        study = benches.study(budget={"joules": 40})
        coordinate(store, study, in_process(study, joules=5.0))
        more = benches.study(budget={"joules": 70})
        table = LiveTable(store, more)
        coordinate(store, more, in_process(more, joules=5.0), table.tell)
        assert table._spent().text(more.budget) == "75 of 70 J"
