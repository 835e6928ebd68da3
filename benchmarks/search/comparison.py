"""Many runs, in up to two processes, each entered in the ledger when it ends."""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager

from benchmarks.search import problems
from benchmarks.search.ledger import Ledger
from benchmarks.search.race import Key, Run, race

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What numerical libraries, torch among them, look at when a process first loads them."""


def compare(keys: Sequence[Key], ledger: Ledger, processes: int) -> list[Run]:
    """Return the runs of these keys, in order: from the ledger, or run now and entered there.

    Each is run in a fresh process of a single thread, for CPU seconds to mean the same for everybody;
    with no `processes`, for a debugger or a test, all are run in this one.
    A run that breaks down is reported on standard error and left out; the others go on.
    """
    known = {run.key: run for run in ledger.runs()}
    left = [key for key in dict.fromkeys(keys) if key not in known]
    for key, done in _ended(left, processes):
        if error := done.exception():
            sys.stderr.write(f"{key}: {type(error).__name__}: {error}\n")
            continue
        run = known[key] = done.result()
        ledger.append(run)
        last = run.hypervolumes[-1] if run.hypervolumes else run.anchors
        sys.stderr.write(f"{key.problem} {key.searcher} seed {key.seed}: {last:.3f}\n")
    return [known[key] for key in dict.fromkeys(keys) if key in known]


def _ended(keys: Sequence[Key], processes: int) -> Iterator[tuple[Key, Future[Run]]]:
    """Yield each key when its run has ended, one way or the other."""
    if processes == 0:
        for key in keys:
            yield key, _here(key)
        return
    spawn = multiprocessing.get_context("spawn")
    with _one_thread(), ProcessPoolExecutor(processes, mp_context=spawn, max_tasks_per_child=1) as pool:
        waiting = {pool.submit(_run, key): key for key in keys}
        for done in as_completed(waiting):
            yield waiting[done], done


def _here(key: Key) -> Future[Run]:
    done: Future[Run] = Future()
    try:
        done.set_result(_run(key))
    except Exception as error:
        done.set_exception(error)
    return done


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes that are started meanwhile compute in one thread each."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run(key: Key) -> Run:
    return race(problems.load(key.problem), key.searcher, key.trials, key.seed, key.initial, key.stopping)
