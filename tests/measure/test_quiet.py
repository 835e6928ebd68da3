import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from hpo.errors import HpoError
from hpo.measure.quiet import QuietNode

_spawn = multiprocessing.get_context("spawn")
PATIENCE = 30.0
"""Seconds after which a test gives up waiting; no test that passes comes near it."""
A_WHILE = 0.2
"""Seconds a holder lingers so that an intruder would be seen; a correct lock passes at any length."""


@dataclass(frozen=True)
class Span:
    """One block as its process saw it, from after entering to before leaving."""

    kind: str
    process: str
    entered: int
    left: int

    def overlaps(self, other: "Span") -> bool:
        return self.entered < other.left and other.entered < self.left


def record(log: Path, kind: str, entered: int) -> None:
    """Append a span to the log of this process; CLOCK_MONOTONIC is one clock for all processes."""
    with log.open("a", encoding="ascii") as file:
        file.write(f"{kind} {log.stem} {entered} {time.monotonic_ns()}\n")


def spans(directory: Path) -> list[Span]:
    lines = [line.split() for log in directory.glob("*.log") for line in log.read_text().splitlines()]
    return [Span(kind, process, int(entered), int(left)) for kind, process, entered, left in lines]


def spans_of(directory: Path, process: str) -> list[Span]:
    return [span for span in spans(directory) if span.process == process]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., SpawnProcess]]:
    """Start a function of this module in another process; what still runs at the end is killed."""
    started: list[SpawnProcess] = []

    def run(target: Callable[..., None], *arguments: object) -> SpawnProcess:
        process = _spawn.Process(target=target, args=arguments)
        process.start()
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.join()
        process.close()


def finish(*processes: SpawnProcess) -> None:
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0


def take_turns(directory: Path, log: Path, rounds: int, barrier: Barrier) -> None:
    node = QuietNode(directory)
    barrier.wait(PATIENCE)
    for _ in range(rounds):
        with node.working():
            entered = time.monotonic_ns()
            time.sleep(0.002)
            record(log, "working", entered)
        with node.measuring():
            entered = time.monotonic_ns()
            time.sleep(0.002)
            record(log, "measuring", entered)


def test_a_timing_overlaps_with_nothing_however_three_processes_mix(
    directory: Path, tmp_path: Path, start: Callable[..., SpawnProcess]
) -> None:
    barrier = _spawn.Barrier(3)
    finish(*[start(take_turns, directory, tmp_path / f"{name}.log", 20, barrier) for name in "abc"])
    found = spans(tmp_path)
    assert len(found) == 3 * 20 * 2
    for timing in (span for span in found if span.kind == "measuring"):
        assert not [other for other in found if other is not timing and timing.overlaps(other)]


def meet_inside(directory: Path, barrier: Barrier) -> None:
    with QuietNode(directory).working():
        barrier.wait(PATIENCE)


def test_chunks_of_work_run_side_by_side(directory: Path, start: Callable[..., SpawnProcess]) -> None:
    # Both pass the barrier only if both are inside at once.
    barrier = _spawn.Barrier(2)
    finish(start(meet_inside, directory, barrier), start(meet_inside, directory, barrier))


@dataclass(frozen=True)
class Signals:
    """What the test and one holder of the lock tell each other."""

    at_the_door: Event = field(default_factory=_spawn.Event)
    inside: Event = field(default_factory=_spawn.Event)
    release: Event = field(default_factory=_spawn.Event)


def hold(directory: Path, kind: str, log: Path, signals: Signals) -> None:
    node = QuietNode(directory)
    signals.at_the_door.set()
    with node.working() if kind == "working" else node.measuring():
        entered = time.monotonic_ns()
        signals.inside.set()
        signals.release.wait(PATIENCE)
        time.sleep(A_WHILE)
        record(log, kind, entered)


@pytest.mark.parametrize(
    ("first", "second"), [("working", "measuring"), ("measuring", "working"), ("measuring", "measuring")]
)
def test_the_second_waits_until_the_first_has_left(
    first: str, second: str, directory: Path, tmp_path: Path, start: Callable[..., SpawnProcess]
) -> None:
    one, two = Signals(), Signals()
    holder = start(hold, directory, first, tmp_path / "first.log", one)
    assert one.inside.wait(PATIENCE)
    follower = start(hold, directory, second, tmp_path / "second.log", two)
    assert two.at_the_door.wait(PATIENCE)
    assert not two.inside.wait(A_WHILE)
    one.release.set()
    two.release.set()
    finish(holder, follower)
    (before,), (after,) = spans_of(tmp_path, "first"), spans_of(tmp_path, "second")
    assert before.left < after.entered


def wait_until_gate_is_held(directory: Path) -> None:
    """Return once some process holds the gate exclusively, that is, waits to measure."""
    deadline = time.monotonic() + PATIENCE
    with (directory / "gate").open() as gate:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            fcntl.flock(gate, fcntl.LOCK_UN)
            time.sleep(0.005)
    pytest.fail("nobody ever waited at the gate")


def test_work_that_comes_later_does_not_overtake_a_waiting_timing(
    directory: Path, tmp_path: Path, start: Callable[..., SpawnProcess]
) -> None:
    one, two, three = Signals(), Signals(), Signals()
    early = start(hold, directory, "working", tmp_path / "early.log", one)
    assert one.inside.wait(PATIENCE)
    timing = start(hold, directory, "measuring", tmp_path / "timing.log", two)
    wait_until_gate_is_held(directory)
    late = start(hold, directory, "working", tmp_path / "late.log", three)
    assert three.at_the_door.wait(PATIENCE)
    # Without the gate it would walk in beside the early one, which is still inside.
    assert not three.inside.wait(A_WHILE)
    for signals in (one, two, three):
        signals.release.set()
    finish(early, timing, late)
    (a,), (b,), (c,) = (spans_of(tmp_path, name) for name in ("early", "timing", "late"))
    assert a.left < b.entered < b.left < c.entered


def work_without_pause(directory: Path, enough: Event, inside: Event) -> None:
    node = QuietNode(directory)
    while not enough.is_set():
        with node.working():
            inside.set()
            time.sleep(0.01)


def test_a_timing_gets_in_while_others_work_without_pause(
    directory: Path, start: Callable[..., SpawnProcess]
) -> None:
    enough, busy = _spawn.Event(), [_spawn.Event(), _spawn.Event()]
    workers = [start(work_without_pause, directory, enough, inside) for inside in busy]
    assert all(inside.wait(PATIENCE) for inside in busy)
    for _ in range(5):
        with QuietNode(directory).measuring():
            pass
    enough.set()
    finish(*workers)


@pytest.mark.parametrize("kind", ["working", "measuring"])
def test_a_killed_holder_frees_the_machine(
    kind: str, directory: Path, tmp_path: Path, start: Callable[..., SpawnProcess]
) -> None:
    one, two = Signals(), Signals()
    holder = start(hold, directory, kind, tmp_path / "holder.log", one)
    assert one.inside.wait(PATIENCE)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    two.release.set()
    finish(start(hold, directory, "measuring", tmp_path / "next.log", two))
    assert not spans_of(tmp_path, "holder")
    assert len(spans_of(tmp_path, "next")) == 1


def test_an_error_inside_a_block_lets_go(directory: Path) -> None:
    node = QuietNode(directory)
    for block in (node.working, node.measuring):
        with pytest.raises(ZeroDivisionError), block():
            raise ZeroDivisionError
    with (directory / "work").open() as work, (directory / "gate").open() as gate:
        fcntl.flock(work, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_nested_blocks_take_nothing_further(directory: Path) -> None:
    # Two instances, since whoever nests them may not know of the other.
    outer, inner = QuietNode(directory), QuietNode(directory)
    with outer.measuring(), inner.working(), inner.measuring():
        pass
    with outer.working(), inner.working():
        pass


def test_leaving_a_nested_block_keeps_the_outer_one(directory: Path) -> None:
    node = QuietNode(directory)
    with node.measuring():
        with node.working():
            pass
        with (directory / "work").open() as work, pytest.raises(BlockingIOError):
            fcntl.flock(work, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_a_timing_inside_a_chunk_of_work_is_refused(directory: Path) -> None:
    node = QuietNode(directory)
    with node.working(), pytest.raises(HpoError, match="inside working"), node.measuring():
        pytest.fail("unreachable")


def test_threads_of_one_process_exclude_each_other_too(directory: Path) -> None:
    node, order = QuietNode(directory), []

    def work() -> None:
        with node.working():
            order.append("work")

    with node.measuring():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(A_WHILE)
        order.append("timing done")
    thread.join(PATIENCE)
    assert order == ["timing done", "work"]


def test_the_directory_is_private(directory: Path) -> None:
    with QuietNode(directory).working():
        assert directory.stat().st_mode & 0o777 == 0o700
        assert (directory / "gate").stat().st_mode & 0o777 == 0o600


def test_a_directory_that_others_may_enter_is_refused(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(HpoError, match="others may enter it"), QuietNode(directory).working():
        pytest.fail("unreachable")


def test_a_link_in_place_of_the_directory_is_refused(directory: Path, tmp_path: Path) -> None:
    directory.symlink_to(tmp_path)
    with pytest.raises(HpoError, match="not a directory of this user"), QuietNode(directory).working():
        pytest.fail("unreachable")


def test_a_link_in_place_of_a_lock_file_is_refused(directory: Path, tmp_path: Path) -> None:
    directory.mkdir(mode=0o700)
    (directory / "gate").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HpoError, match="cannot be used"), QuietNode(directory).working():
        pytest.fail("unreachable")
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_in_place_of_the_directory_is_refused(directory: Path) -> None:
    directory.touch()
    with pytest.raises(HpoError, match="cannot be used"), QuietNode(directory).measuring():
        pytest.fail("unreachable")


def test_the_default_directory_is_one_a_user_under_the_temporary_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert QuietNode().directory == tmp_path / f"compression-hpo-{os.getuid()}"


def test_importing_the_module_does_not_import_torch() -> None:
    code = "import sys, hpo.measure.quiet; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
