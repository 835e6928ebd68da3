import subprocess
import sys
import threading
from functools import partial

import pytest

from hpo.run.background import Background

SOON_S = 30.0
"""How long something may take that takes no time unless it never comes."""


def test_one_call_at_a_time_and_its_error_is_heard_once() -> None:
    background: Background[int] = Background(apart=True)
    assert background.collect() is None
    background.begin(lambda: 1 // 0)
    with pytest.raises(RuntimeError, match="one call at a time"):
        background.begin(lambda: 1)
    background.wait(SOON_S)
    with pytest.raises(ZeroDivisionError):
        background.collect()
    background.begin(lambda: 7)
    background.wait(SOON_S)
    assert background.collect() == 7
    assert background.collect() is None


def test_a_call_that_never_ends_does_not_keep_the_interpreter_from_ending() -> None:
    code = (
        "import hpo.run.background as b, time; b._PATIENCE_S = 0.1\n"
        "b.Background(apart=True).begin(lambda: time.sleep(600)); print('over')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], timeout=60, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "over\n", "")


def test_a_thread_that_asks_lets_others_in_soon_and_leaves_all_as_it_was() -> None:
    for thread in threading.enumerate():
        if thread.name == "asking":  # of a test before this one
            thread.join(SOON_S)
    before = sys.getswitchinterval()
    background: Background[float] = Background(apart=True)
    background.begin(sys.getswitchinterval)
    background.wait(SOON_S)
    found = background.collect()
    assert found is not None
    assert found < before
    for thread in threading.enumerate():
        if thread.name == "asking":
            thread.join(SOON_S)
    assert sys.getswitchinterval() == before


def test_a_call_left_behind_does_not_keep_the_shorter_interval() -> None:
    for thread in threading.enumerate():
        if thread.name == "asking":
            thread.join(SOON_S)
    before, gates = sys.getswitchinterval(), (threading.Event(), threading.Event())
    calls = [Background[bool](apart=True) for _ in gates]
    for background, gate in zip(calls, gates, strict=True):
        background.begin(partial(gate.wait, SOON_S))
    for gate, background in zip(gates, calls, strict=True):  # the first to begin ends first
        gate.set()
        background.wait(SOON_S)
    for thread in threading.enumerate():
        if thread.name == "asking":
            thread.join(SOON_S)
    assert sys.getswitchinterval() == before
