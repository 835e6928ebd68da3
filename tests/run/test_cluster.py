"""Faults and changes of a cluster: workers that stop, nodes that come and go, GPUs, lanes."""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from hpo import registry
from hpo.errors import HpoError
from hpo.run import on_ray
from hpo.run.bench import BenchSpec
from hpo.run.job import FIRST_STAGE, Job
from hpo.run.on_ray import RayRunner
from hpo.run.ray_cluster import want_token, what_there_is
from hpo.run.ray_depot import shipment_of
from hpo.run.ray_pulse import Pulse
from hpo.run.ray_worker import ASIDE, Worker
from hpo.space import Candidate
from hpo.store.store import Store
from hpo.store.values import EventKind, StudyState
from hpo.trial import Cause, TrialState
from tests.run import benches
from tests.run.cluster_benches import CARRYING, PLACED, TERMED
from tests.run.conftest import coordinate

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Tip. In future versions of Ray:FutureWarning"),
]

Add = Callable[..., Any]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster with a token and a head of two processors; tests add nodes, and take them away again."""
    want_token()
    ray_command = str(Path(sys.executable).parent / "ray")
    subprocess.run([ray_command, "get-auth-token", "--generate"], check=True, capture_output=True)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def add(cluster: Cluster) -> Iterator[Add]:
    """Add a node, for the length of a test."""
    added: list[Any] = []

    def node(**options: Any) -> Any:
        added.append(cluster.add_node(**options))
        return added[-1]

    yield node
    for one in added:
        if one in cluster.worker_nodes:
            cluster.remove_node(one)


@contextmanager
def runner_of(
    cluster: Cluster, target: str, document: dict[str, Any] | None = None, trials: int = 12, **run: Any
) -> Iterator[tuple[Any, RayRunner]]:
    study = benches.study(trials, run={"runner": "ray", **run})
    runner = registry.load("runner", "ray")(BenchSpec(target, document or {}), study.run, cluster.address)
    try:
        yield study, runner
    finally:
        runner.close()


def pid_of(runner: RayRunner, worker: str) -> int:
    slot = next(slot for slot in runner._slots if slot.name == worker)
    pid: int = ray.get(slot.actor.pulse.remote()).pid
    return pid


def once(what: Callable[[Any], None], number: int, stage: EventKind = EventKind.STAGE_DONE) -> Any:
    """Return a listener that does something when the first stage of a trial is done."""
    done: list[int] = []

    def listen(kind: EventKind, trial: Any) -> None:
        if kind is stage and trial.number == number and not done:
            done.append(number)
            what(trial)

    return listen


def test_a_worker_that_is_stopped_is_lost_after_its_lease_and_its_trial_runs_again(
    cluster: Cluster, store: Store
) -> None:
    with runner_of(cluster, benches.TOY, trials=6, worker_lease_s=1.5) as (study, runner):
        outcome = coordinate(
            store, study, runner, once(lambda t: os.kill(pid_of(runner, t.worker), signal.SIGSTOP), 4)
        )
    assert outcome.state is StudyState.FINISHED
    assert [t.attempt for t in store.trials("toy")] == [1, 1, 1, 1, 2, 1]
    (lost,) = [e for e in store.events("toy") if e.kind is EventKind.LOST]
    assert lost.payload["why"] == "no sign of life for 1.5 s"
    assert lost.payload["cause"] == Cause.LOST_WORKER


def test_the_trial_of_a_killed_worker_is_the_next_to_start(cluster: Cluster, store: Store) -> None:
    with runner_of(cluster, benches.TOY, {"faults": {"slow": 0.1}}, workers=2) as (study, runner):
        coordinate(store, study, runner, once(lambda t: os.kill(pid_of(runner, t.worker), signal.SIGKILL), 5))
    events = store.events("toy")
    at = next(i for i, e in enumerate(events) if e.kind is EventKind.LOST)
    assert events[at].trial == 5
    started = next(e for e in events[at:] if e.kind is EventKind.STARTED)
    assert (started.trial, store.trial("toy", 5).attempt) == (5, 2)


def test_a_worker_that_is_told_to_go_hands_its_trial_back_without_an_attempt_in_vain(
    cluster: Cluster, store: Store, tmp_path: Path
) -> None:
    marker = tmp_path / "pid"

    def terminate() -> None:
        while not marker.exists() or not marker.read_text():
            if over.wait(0.05):
                return
        os.kill(int(marker.read_text()), signal.SIGTERM)

    over = threading.Event()
    killer = threading.Thread(target=terminate)
    with runner_of(cluster, TERMED, {"marker": str(marker)}, trials=6) as (study, runner):
        killer.start()
        outcome = coordinate(store, study, runner)
        over.set()
        killer.join()
    assert outcome.state is StudyState.FINISHED
    assert all(t.state is TrialState.COMPLETED for t in store.trials("toy"))
    kinds = [e.kind for e in store.events("toy") if e.trial == 3]
    assert kinds.count(EventKind.REQUEUED) == 1
    assert EventKind.LOST not in kinds
    assert not _lives(int(marker.read_text()))


def _lives(pid: int) -> bool:
    try:
        psutil.Process(pid).wait(timeout=30)
    except psutil.NoSuchProcess:
        return False
    except psutil.TimeoutExpired:
        return True
    return False


def test_a_study_outlives_a_node_and_uses_one_that_joins(
    cluster: Cluster, add: Add, store: Store, tmp_path: Path
) -> None:
    first, log = add(num_cpus=2), tmp_path / "log"
    doomed = first.node_id
    joined: list[str] = []

    def change(kind: EventKind, trial: Any) -> None:
        if kind is EventKind.COMPLETED and trial.number == 5 and not joined:
            cluster.remove_node(first, allow_graceful=False)
            joined.append(add(num_cpus=2).node_id)

    document = {"faults": {"slow": 0.25}, "log": str(log)}
    with runner_of(cluster, PLACED, document, trials=40, workers=4) as (study, runner):
        runner.start()
        while runner.free() < 4:
            runner.wait(0.5)
        outcome = coordinate(store, study, runner, change)
    assert outcome.state is StudyState.FINISHED
    assert [t.state for t in store.trials("toy")] == [TrialState.COMPLETED] * 40
    nodes = [line.split()[-1] for line in log.read_text().splitlines() if " on " in line]
    assert doomed in nodes
    assert joined[0] in nodes


def test_workers_without_room_wait_while_others_work(cluster: Cluster, add: Add) -> None:
    with runner_of(cluster, benches.TOY, workers=3) as (_, runner):
        runner.start()
        while runner.free() < 2:
            runner.wait(0.5)
        assert [slot.is_placed for slot in runner._slots].count(False) == 1
        add(num_cpus=1)
        while runner.free() < 3:
            runner.wait(0.5)


class Joining(logging.Handler):
    """Adds a node when the log says for the first time that one is waited for."""

    def __init__(self, add: Add, when: str, **options: Any) -> None:
        super().__init__()
        self._add, self._when, self._options, self.said = add, when, options, ""

    def emit(self, record: logging.LogRecord) -> None:
        if not self.said and self._when in record.getMessage():
            self.said = record.getMessage()
            self._add(**self._options)

    def __enter__(self) -> "Joining":
        logging.getLogger(on_ray.__name__).addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger(on_ray.__name__).removeHandler(self)


def test_it_is_said_what_is_waited_for_and_waited_on(
    cluster: Cluster, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "_PATIENCE_S", 0.0)
    short = runner_of(cluster, benches.TOY, threads=3, worker_lease_s=2)
    with Joining(add, "no workers", num_cpus=3) as joining, short as (_, runner):
        assert runner.start().device == "toy"
    assert "1 of 3 CPU each are asked for, the cluster has 1 node (2 CPU)" in joining.said


def test_each_worker_has_a_gpu_of_its_own(cluster: Cluster, add: Add) -> None:
    add(num_cpus=2, num_gpus=2)
    with runner_of(cluster, PLACED, workers=2) as (_, runner):
        runner.start()
        while runner.free() < 2:
            runner.wait(0.5)
        devices = {slot.setup.device for slot in runner._slots if slot.setup is not None}
    assert devices == {"gpu-0", "gpu-1"}


LANES = {"time": {"resources": {"target": 1}}}


def test_what_is_timed_is_timed_on_the_lane_and_the_rest_anywhere_else(
    cluster: Cluster, add: Add, store: Store
) -> None:
    add(num_cpus=1, resources={"target": 1})
    with runner_of(cluster, CARRYING, trials=10, workers=2, lanes=LANES) as (study, runner):
        assert runner.start().device == "target"
        outcome = coordinate(store, study, runner)
    trials = store.trials("toy")
    assert outcome.state is StudyState.FINISHED
    assert {m.metric: m.device for t in trials for m in t.measurements} == {
        "perplexity": "anywhere",
        "weight_memory": "target",
    }
    for trial in trials:  # what was timed is what another process has made of this very trial
        maker, _, number = str(trial.notes["model"]).partition(":")
        assert (maker != trial.notes["pid"], number) == (True, str(trial.number))


def test_a_worker_leaves_the_node_of_a_lane_that_joins_late(
    cluster: Cluster, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "_PATIENCE_S", 4.0)  # by then, two workers are there and a third waits
    wide = runner_of(cluster, PLACED, workers=3, lanes=LANES, worker_lease_s=2)
    with (
        Joining(add, "for the stage time", num_cpus=1, resources={"target": 1}) as joining,
        wide as (_, runner),
    ):
        assert runner.start().device == "target"
        lane = next(slot for slot in runner._slots if slot.kind.lane)
        while not lane.node or runner.free() < 2:
            runner.wait(0.5)
        assert lane.node not in [slot.node for slot in runner._slots if slot is not lane]
    assert joining.said


def test_a_model_that_cannot_be_carried_fails_its_trial_alone(
    cluster: Cluster, add: Add, store: Store
) -> None:
    add(num_cpus=1, resources={"target": 1})
    document = {"faults": {"uncarried": 4}}
    with runner_of(cluster, CARRYING, document, trials=6, lanes=LANES) as (study, runner):
        coordinate(store, study, runner)
    trial = store.trial("toy", 4)
    assert (trial.state, trial.cause) == (TrialState.FAILED, Cause.OUT_OF_MEMORY)
    assert "too large" in trial.message
    assert sum(t.state is TrialState.COMPLETED for t in store.trials("toy")) == 5


def test_the_maker_of_a_model_is_free_once_it_is_put_by_for_the_lane(cluster: Cluster, add: Add) -> None:
    add(num_cpus=1, resources={"target": 1})
    first, second = (Job(number, 1, Candidate.of({"x": 0.5}), "plan") for number in range(2))
    with runner_of(cluster, CARRYING, lanes=LANES) as (_, runner):
        runner.start()
        seen: list[tuple[int, str]] = []

        def listen() -> None:
            for report in runner.wait(0.2):
                assert report.result is not None, report.lost
                seen.append((report.job.number, report.result.stage))

        for job in (first, second):
            while not runner.free():
                listen()
            runner.submit(job, FIRST_STAGE)
            while (job.number, "compress") not in seen:
                listen()
            runner.submit(job, "time")
        while not runner.free() or (0, "time") not in seen:
            listen()
        assert (1, "time") not in seen, "the lane's only worker is kept by a trial that is not released"
        runner.release(first)
        while (1, "time") not in seen:
            listen()
        runner.release(second)
        assert runner.alive() == {}


def test_journals_of_nodes_are_read_once_however_many_workers_a_node_has(cluster: Cluster) -> None:
    with runner_of(cluster, PLACED, workers=2) as (_, runner):
        runner.start()
        while runner.free() < 2:
            runner.wait(0.5)
        ((job, result),) = runner.unheard()
    assert (job.number, job.candidate.values, result.stage) == (7, {"x": 0.5}, "measure")


def test_a_running_trial_is_alive_and_a_released_one_is_not_told_of(cluster: Cluster) -> None:
    job = Job(3, 1, Candidate.of({"x": 0.5}), "plan")
    with runner_of(cluster, benches.TOY, {"faults": {"slow": 0.5}}) as (_, runner):
        runner.start()
        runner.submit(job, FIRST_STAGE)
        ((number, silent),) = runner.alive().items()
        assert number == 3
        title = psutil.Process(pid_of(runner, "worker-0")).cmdline()[0]
        assert title.startswith("ray::Worker"), "what docs/cluster.md and the examples call it"
        assert silent < 30
        while not runner.wait(0.5):
            pass
        runner.release(job)
        assert runner.alive() == {}


def test_a_lane_that_this_machine_has_no_device_for_is_refused_where_nothing_can_join(
    cluster: Cluster,
) -> None:
    study = benches.study(run={"runner": "ray", "lanes": LANES})
    with pytest.raises(HpoError, match=r"run\.lanes\.time asks for 1 of 1 CPU, 1 target each") as caught:
        RayRunner(BenchSpec(benches.TOY, {}), study.run, None)
    assert "--ray-address" in caught.value.hint


def test_a_model_that_a_node_lacks_is_shipped_to_it_once(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.run.ray_depot._PIECE", 4)
    (model := tmp_path / "model").mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_text("weights in three pieces")
    spec = BenchSpec(benches.TOY, {"model": {"source": str(model)}})
    shipment = shipment_of(spec)
    assert shipment is not None
    assert shipment.received(spec) == spec, "here it is"
    away = replace(shipment, model=replace(shipment.model, directory="/nowhere/model"))
    monkeypatch.setenv("HPO_CACHE", str(tmp_path / "cache"))
    placed = Path(away.received(spec).document["model"]["source"])
    assert placed == tmp_path / "cache" / "models" / shipment.model.digest
    assert (placed / "model.safetensors").read_text() == "weights in three pieces"
    ray.kill(shipment.depot)
    assert away.received(spec).document["model"]["source"] == str(placed), "the second asks nobody"


@pytest.mark.parametrize("document", [{}, {"model": "x"}, {"model": {"source": "reference"}}])
def test_a_model_that_is_no_directory_here_is_not_shipped(document: dict[str, Any]) -> None:
    assert shipment_of(BenchSpec(benches.TOY, document)) is None


def test_who_did_not_listen_blames_nobody(cluster: Cluster) -> None:
    actor = (
        ray.remote(concurrency_groups={ASIDE: 1})(Worker)
        .options(resources={"nowhere": 1})
        .remote(BenchSpec(benches.TOY, {}))
    )
    pulse = Pulse(actor, 0.0, most_s=3.0)
    pulse.look(1.0)
    assert pulse.silence_s == 0, "it has no place yet, so it owes no answer"
    pulse.last = object()  # type: ignore[assignment]  # any beat will do
    pulse.look(2.0)
    assert pulse.silence_s == 1
    pulse.look(1000.0)
    assert pulse.silence_s == 4
    ray.kill(actor)


def test_a_cluster_is_described_by_its_kinds_of_nodes(cluster: Cluster, add: Add) -> None:
    assert what_there_is() == "1 node (2 CPU)"
    add(num_cpus=2)
    assert what_there_is() == "2 nodes (2 CPU each)"
