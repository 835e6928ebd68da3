"""A healing that is cut short goes on from its checkpoint, and ends as if nothing had happened."""

import copy
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo.compress import treatment
from hpo.compress.keeper import Keeper, Preempted
from hpo.compress.method import Checked, Healed, Healing, Patient
from hpo.compress.pausing import run_out
from hpo.compress.recipe import methods
from hpo.compress.room import MOST_GIB
from hpo.compress.snapshot import Snapshot
from hpo.models.dense import DenseModel
from hpo.space import Value
from tests.compress.healing import taught
from tests.compress.test_pausing import CASES, LOW_RANK, begun, hooks, is_same, sick, state

NESTED: tuple[dict[str, Any], dict[str, Value]] = (
    {"heal": "nested", "top_keep_ratio": 0.6, "patience": 2, "check_every": 2},
    LOW_RANK,
)
GENERATED: tuple[dict[str, Any], dict[str, Value]] = ({"heal": "distil", "text": "generated"}, LOW_RANK)
ALL = {**CASES, "nested": NESTED, "text of its own": GENERATED}
FINE_TUNE: dict[str, Any] = {"heal": "fine_tune"}
SHORT = 4


@pytest.fixture
def dense() -> DenseModel:
    return taught()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("hpo.compress.keeper.cache_dir", lambda: tmp_path)
    monkeypatch.setattr(treatment, "SHORT_STEPS", SHORT)
    return tmp_path / "checkpoints"


def leaving_after(steps: int) -> Callable[[], bool]:
    """Return what says, from the step after so many on, that the process has to go."""
    asked = iter(range(1, 10**6))
    return lambda: next(asked) >= steps


def kept(found: Patient, leaving: Callable[[], bool] = lambda: False, content: str = "plan") -> Patient:
    keeper = Keeper(leaving)
    keeper.at("model", content)
    return replace(found, keeper=keeper)


def counting_steps(taken: list[int]) -> Keeper:
    """Return a keeper that counts the steps taken."""

    def leaving() -> bool:
        taken.append(1)
        return False

    keeper = Keeper(leaving)
    keeper.at("model", "plan")
    return keeper


def files(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.*"))


def cut_short(found: Patient, steps: int) -> list[Checked]:
    """Heal until the process has to go after so many steps; return what was seen at the pause."""
    run, seen = begun(kept(found, leaving_after(steps))), []
    try:
        while True:
            seen.append(next(run))
    except Preempted as told:
        assert "told to go" in told.message  # noqa: PT017 (what came before it counts)
    return seen


def separate_runs(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Let a shared run be done anew."""
    monkeypatch.setattr("hpo.compress.warm.cache_dir", lambda: directory)


# The same healing


def test_every_healer_is_under_test() -> None:
    assert {healing["heal"] for healing, _ in ALL.values()} == set(methods("heal"))


@pytest.mark.parametrize("steps", [3, 6])
@pytest.mark.parametrize(("healing", "factorised"), ALL.values(), ids=ALL)
def test_what_was_cut_short_ends_as_if_it_had_not_been(
    healing: dict[str, Any],
    factorised: dict[str, Value],
    steps: int,
    dense: DenseModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    separate_runs(monkeypatch, tmp_path / "whole")
    whole = sick(dense, healing, factorised)
    run = begun(whole)
    paused = list(run_and_tell(run))
    expected: Healed = paused.pop()

    separate_runs(monkeypatch, tmp_path / "cut")
    cut = sick(dense, healing, factorised)
    seen = cut_short(cut, steps)
    assert seen == (paused if steps > SHORT else [])

    found = sick(dense, healing, factorised)
    torch.manual_seed(steps)
    again = list(run_and_tell(begun(kept(found))))
    healed = again.pop()
    assert healed == expected
    assert healed.curve == expected.curve
    assert [(checked.steps, checked.loss) for checked in again] == [(c.steps, c.loss) for c in paused]
    assert is_same(state(found.model), state(whole.model))
    assert hooks(found.model) == 0


def run_and_tell(run: Healing) -> Iterator[Any]:
    """Yield what a healing shows at its pauses, and at last what it comes to."""
    yield (yield from run)


@pytest.mark.parametrize(
    "case", ["fine_tune", "mezo", "patience", "adalora", "lora, right, left, pause", "lora, kept"]
)
def test_what_is_cut_short_again_and_again_ends_as_if_it_had_not_been(case: str, dense: DenseModel) -> None:
    whole = sick(dense, *CASES[case])
    expected = run_out(begun(whole))
    steps = expected.steps
    for _ in range(steps - 1):  # each attempt gets one step further
        cut_short(sick(dense, *CASES[case]), 1)
    found = sick(dense, *CASES[case])
    asked: list[int] = []
    keeper = counting_steps(asked)
    assert run_out(begun(replace(found, keeper=keeper))) == expected
    assert len(asked) == 1, "no step was taken twice"
    assert is_same(state(found.model), state(whole.model))


def test_half_precision_goes_on_from_its_copies_in_full_precision(dense: DenseModel) -> None:
    def half() -> Patient:
        found = sick(dense, FINE_TUNE)
        return replace(found, model=copy.deepcopy(found.model).bfloat16())

    whole = half()
    expected = run_out(begun(whole))
    cut_short(half(), 5)
    found = half()
    assert run_out(begun(kept(found))) == expected
    assert is_same(state(found.model), state(whole.model))


def test_a_healing_that_was_done_is_not_done_again(dense: DenseModel, cache: Path) -> None:
    """What comes after it was cut short: a rounding, a measurement."""
    whole = kept(sick(dense, FINE_TUNE))
    expected = run_out(begun(whole))
    assert len(files(cache)) == 1
    asked: list[int] = []
    keeper = counting_steps(asked)
    found = replace(sick(dense, FINE_TUNE), keeper=keeper)
    assert run_out(begun(found)) == expected
    assert asked == []
    assert is_same(state(found.model), state(whole.model))


def test_a_healing_that_diverges_after_it_was_cut_short_is_undone(dense: DenseModel) -> None:
    bold = {**FINE_TUNE, "learning_rate": 0.99, "schedule": "constant"}
    whole = sick(dense, bold)
    expected = run_out(begun(whole))
    assert not expected.kept_after
    cut_short(sick(dense, bold), 1)
    found = sick(dense, bold)
    assert run_out(begun(kept(found))) == expected
    assert is_same(state(found.model), state(whole.model))


# When and what is kept


def test_without_a_place_nothing_is_kept(dense: DenseModel, cache: Path) -> None:
    with pytest.raises(Preempted):
        run_out(begun(replace(sick(dense, FINE_TUNE), keeper=Keeper(leaving_after(2)))))
    run_out(begun(sick(dense, FINE_TUNE)))
    assert files(cache) == []


def test_a_checkpoint_is_kept_where_a_healing_pauses(dense: DenseModel, cache: Path) -> None:
    run = begun(kept(sick(dense, FINE_TUNE)))
    assert files(cache) == []
    next(run)
    assert len(files(cache)) == 1


@pytest.mark.parametrize(
    ("takes", "written"),
    [
        (0.0, [60.0, 120.0, 180.0, 240.0]),  # every minute
        (30.0, [60.0, 690.0, 1320.0]),  # half a minute to write is 5 % of ten minutes
    ],
)
def test_checkpoints_are_written_now_and_then_and_large_ones_less_often(
    takes: float, written: list[float]
) -> None:
    now, writes = [0.0], []
    keeper = Keeper(clock=lambda: now[0])
    keeper.at("model", "plan")

    def snapshot() -> Snapshot:
        writes.append(now[0])
        now[0] += takes
        return Snapshot({"0": torch.ones(2)})

    def steps() -> Generator[int, None, str]:
        for step in range(1, 200):
            now[0] += 10.0
            yield step
        return "done"

    assert run_out(keeper.watch(steps(), snapshot)) == "done"
    assert writes[: len(written)] == written


def test_a_run_that_is_given_up_is_left_at_once() -> None:
    left: list[int] = []

    def steps() -> Generator[int, None, None]:
        try:
            yield from range(1, 9)
        finally:
            left.append(1)

    inner = steps()  # held here too, so that it does not end for want of an owner
    run = Keeper().watch(inner, Snapshot)
    assert [next(run), next(run)] == [1, 2]
    assert left == []
    run.close()
    assert left == [1]


def test_what_one_machine_began_another_goes_on_with_through_a_directory_they_share(
    dense: DenseModel, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sick(dense, FINE_TUNE)
    expected = run_out(begun(whole))
    monkeypatch.setenv("HPO_SHARED", str(tmp_path / "shared"))
    with pytest.raises(Preempted):
        run_out(begun(kept(sick(dense, FINE_TUNE), leaving_after(3))))
    assert not cache.exists()
    assert len(files(tmp_path / "shared" / "checkpoints")) == 1
    monkeypatch.setattr("hpo.compress.keeper.cache_dir", lambda: tmp_path / "another machine")
    asked: list[int] = []
    found = replace(sick(dense, FINE_TUNE), keeper=counting_steps(asked))
    assert run_out(begun(found)) == expected
    assert len(asked) < expected.steps
    assert is_same(state(found.model), state(whole.model))


def test_a_keeper_removes_what_it_kept(dense: DenseModel, cache: Path) -> None:
    found = kept(sick(dense, FINE_TUNE))
    next(begun(found))
    (path,) = files(cache)
    path.with_name(f".{path.name}.tmp-99").write_bytes(b"left by a kill")
    found.keeper.remove()
    found.keeper.remove()
    assert [file for file in files(cache) if file.is_file()] == []


def test_the_checkpoints_used_longest_ago_make_room(
    dense: DenseModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kept(sick(dense, FINE_TUNE), content="first")
    run_out(begun(first))
    (path,) = files(cache)
    os.utime(path, (1.0, 1.0))
    monkeypatch.setenv(MOST_GIB, str(1.5 * path.stat().st_size / 2**30))
    run_out(begun(kept(sick(dense, FINE_TUNE), content="second")))
    assert len(files(cache)) == 1
    assert not path.exists()
    monkeypatch.setenv(MOST_GIB, "0")
    run_out(begun(kept(sick(dense, FINE_TUNE), content="third")))
    assert len(files(cache)) == 1


# What cannot be used


def test_a_checkpoint_of_another_plan_is_not_taken(dense: DenseModel) -> None:
    cut_short(sick(dense, FINE_TUNE), 3)
    expected = run_out(begun(sick(dense, FINE_TUNE)))
    assert run_out(begun(kept(sick(dense, FINE_TUNE), content="another"))) == expected


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_torn_checkpoint_is_ignored_with_a_warning(
    share: float, dense: DenseModel, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut_short(sick(dense, FINE_TUNE), 3)
    (path,) = files(cache)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    _begins_again(dense, caplog)


def test_a_checkpoint_with_a_changed_byte_is_ignored_with_a_warning(
    dense: DenseModel, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut_short(sick(dense, FINE_TUNE), 3)
    (path,) = files(cache)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    _begins_again(dense, caplog)
    assert "damaged" in caplog.text


@pytest.mark.parametrize(
    "other",
    [
        {**FINE_TUNE, "optimiser": "mezo"},
        {"heal": "lora", "rank": 2},
        {"heal": "adalora", "rank": 2},
        {"heal": "lora", "rank": 2, "order": "right_then_left"},
        {**FINE_TUNE, "steps": 40},
    ],
    ids=str,
)
def test_a_checkpoint_of_something_else_under_the_same_name_is_ignored_with_a_warning(
    other: dict[str, Any], dense: DenseModel, caplog: pytest.LogCaptureFixture
) -> None:
    steps = 20 if other.get("steps") == 40 else 6
    cut_short(sick(dense, other), steps)
    _begins_again(dense, caplog)


def _begins_again(dense: DenseModel, caplog: pytest.LogCaptureFixture) -> None:
    whole, found = sick(dense, FINE_TUNE), sick(dense, FINE_TUNE)
    expected = run_out(begun(whole))
    with caplog.at_level(logging.WARNING):
        assert run_out(begun(kept(found))) == expected
    assert "begins again" in caplog.text
    assert is_same(state(found.model), state(whole.model))


# Killed


KILLED = """
import sys
from pathlib import Path
import hpo.compress.keeper as keeper
from hpo.compress import treatment
from tests.compress.healing import taught
from tests.compress.test_pausing import CASES, begun, sick
from tests.compress.test_resuming import kept
keeper.cache_dir = lambda: Path(sys.argv[1])
treatment.SHORT_STEPS = 4
run = begun(kept(sick(taught(), *CASES["fine_tune"])))
next(run)
print("paused", flush=True)
sys.stdin.read()
"""


def test_a_healing_that_was_killed_goes_on_from_its_pause(dense: DenseModel, tmp_path: Path) -> None:
    whole = sick(dense, *CASES["fine_tune"])
    expected = run_out(begun(whole))
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "paused\n"
        process.send_signal(signal.SIGKILL)
    asked: list[int] = []
    keeper = counting_steps(asked)
    found = replace(sick(dense, *CASES["fine_tune"]), keeper=keeper)
    healed = run_out(begun(found))
    assert len(asked) == expected.steps - SHORT
    assert healed.after == pytest.approx(expected.after, rel=1e-6)
    for mine, theirs in zip(state(found.model).values(), state(whole.model).values(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)
