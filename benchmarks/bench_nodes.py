"""What does a study look like while one of its two nodes is killed and comes back?

A study of 260 trials of half a second on a Ray cluster of two nodes with four workers each, over SQLite (see
`benchmarks.faults`). After some seconds the second node is killed as by a power cut; later it joins again.

    python -m benchmarks.bench_nodes
"""

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults import toy
from benchmarks.faults.coordinating import Orders
from benchmarks.faults.nodes import Nodes
from hpo.errors import HpoError
from hpo.store.store import Store
from hpo.store.values import Event, EventKind
from hpo.trial import TrialState

_TRIALS, _WORKERS, _BUCKET_S = 260, 8, 2.0


def _wait_for(url: str, done: int) -> None:
    """Wait until so many trials are completed."""
    while True:
        time.sleep(0.1)
        try:
            with Store.open(url, read_only=True) as store:
                trials = store.trials(toy.NAME)
        except HpoError:  # the coordinator is still starting
            continue
        if sum(trial.state is TrialState.COMPLETED for trial in trials) >= done:
            return


def run() -> tuple[Sequence[Event], float, float]:
    """Return the study's events, and when the node was killed and had joined again."""
    nodes = Nodes(_WORKERS // 2, place=7)
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/nodes.db"
        clock = str(Path(directory) / "clock")
        orders = Orders(url, nodes.address, clock, _TRIALS, _WORKERS, 0, "sobol", 0.17, in_order=False)
        try:
            nodes.start()
            command = [sys.executable, "-m", "benchmarks.faults.coordinating", orders.to_json()]
            process = subprocess.Popen(command, env=nodes.settings, stderr=subprocess.DEVNULL)
            _wait_for(url, 40)
            killed = time.time()
            nodes.kill_second()
            _wait_for(url, 75)
            nodes.join()
            joined = time.time()
            process.wait(timeout=300)
        finally:
            nodes.stop()
        with Store.open(url, read_only=True) as store:
            trials, events = store.trials(toy.NAME), store.events(toy.NAME)
            assert store.faults(time.time()) == []
        assert [t.number for t in trials] == list(range(_TRIALS))
        assert all(t.state is TrialState.COMPLETED for t in trials)
        return events, killed, joined


def table(events: Sequence[Event], killed: float, joined: float) -> str:
    """Return what happened in steps of two seconds from the first start of a trial on."""
    first = next(event.at for event in events if event.kind is EventKind.STARTED)
    counts = Counter((int((event.at - first) // _BUCKET_S), event.kind) for event in events)
    busy: dict[int, set[str]] = {}
    for event in events:
        if event.kind is EventKind.STARTED:
            busy.setdefault(int((event.at - first) // _BUCKET_S), set()).add(str(event.payload["worker"]))
    lines = [
        "| seconds | workers that began a trial | completed | lost with their worker | |",
        "|---|---|---|---|---|",
    ]
    for bucket in range(max(place for place, _ in counts) + 1):
        low, high = bucket * _BUCKET_S, (bucket + 1) * _BUCKET_S
        said = [
            word
            for at, word in ((killed, "the second node is killed"), (joined, "it has joined again"))
            if low <= at - first < high
        ]
        done, lost = counts[bucket, EventKind.COMPLETED], counts[bucket, EventKind.LOST]
        began = len(busy.get(bucket, ()))
        lines.append(f"| {low:.0f} to {high:.0f} | {began} | {done} | {lost} | {', '.join(said)} |")
    again = sum(event.kind is EventKind.REQUEUED for event in events)
    return "\n".join([*lines, "", f"{_TRIALS} of {_TRIALS} trials completed, {again} of them begun again."])


def main() -> None:
    print(table(*run()))


if __name__ == "__main__":
    main()
