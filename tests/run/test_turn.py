"""Asks keep out of the way of timings on the same machine."""

import fcntl
import threading
import time
from pathlib import Path

import pytest

from hpo.measure.quiet import QuietNode
from hpo.run.turn import Turn
from hpo.space import Candidate
from tests.run import benches

SOON_S = 30.0
A_MOMENT_S = 0.2


@pytest.fixture
def node(tmp_path: Path) -> QuietNode:
    return QuietNode(tmp_path / "lock")


def _until_at_the_gate(node: QuietNode) -> None:
    """Return when somebody holds the gate, which a timing does while it waits."""
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        with (node.directory / "gate").open() as gate:
            try:
                fcntl.flock(gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return
    raise AssertionError("nobody came to the gate")


def test_an_ask_begins_when_the_timing_under_way_is_over(node: QuietNode) -> None:
    begun, turn = threading.Event(), Turn(node)

    def ask() -> None:
        with turn.taken():
            begun.set()

    with node.measuring():
        asking = threading.Thread(target=ask)
        asking.start()
        assert not begun.wait(A_MOMENT_S)
    assert begun.wait(SOON_S)
    asking.join(SOON_S)


def test_a_timing_that_waits_goes_first_at_the_next_preview(node: QuietNode) -> None:
    turn = Turn(node)
    problem = turn.sharing(benches.problem(benches.study()))
    order: list[str] = []
    wants = threading.Event()

    def time_it() -> None:
        wants.set()
        with node.measuring():
            order.append("timed")

    with turn.taken():
        timing = threading.Thread(target=time_it)
        timing.start()
        assert wants.wait(SOON_S)
        _until_at_the_gate(node)
        order.append("computed")
        problem.preview([Candidate.of({"x": 0.5})])
        order.append("previewed")
    timing.join(SOON_S)
    assert order == ["computed", "timed", "previewed"]


def test_outside_a_turn_a_preview_takes_no_lock(node: QuietNode) -> None:
    problem = Turn(node).sharing(benches.problem(benches.study()))
    with node.measuring():
        assert problem.preview([Candidate.of({"x": 0.5})]).plans == ("0.500000",)


def test_a_turn_is_given_back_when_an_ask_raises(node: QuietNode) -> None:
    turn = Turn(node)
    with pytest.raises(ZeroDivisionError), turn.taken():
        raise ZeroDivisionError
    with node.measuring():
        pass
    with turn.taken():
        pass
