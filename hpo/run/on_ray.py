"""A runner on Ray Core actors: one actor a worker, one per GPU, pulled stage by stage.

Ray restarts nothing by itself (`max_restarts=0`): with restarts on, a retry goes to the actor that is
still restarting and burns all its attempts. A dead actor is reported, and a new one takes its place, which
waits for room on some node and begins when there is: so workers follow the nodes that join and leave.

A stage with a lane of its own is done by the lane's workers. The worker that made the model packs it, and is
free for another trial once it has been taken, or put by for the lane (one for each of its workers).
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from hpo.errors import HpoError
from hpo.run.bench import BenchSpec, Setup
from hpo.run.job import Job, StageResult
from hpo.run.ray_cluster import connect, first_line, has_room, is_gone, nodes_with, what_there_is
from hpo.run.ray_depot import shipment_of
from hpo.run.ray_lane import MAIN, WorkerKind, kinds_of
from hpo.run.ray_slot import Slot
from hpo.run.ray_worker import Handed
from hpo.run.runner import Report, Runner
from hpo.study import Run
from hpo.trial import Cause

_RESTARTS = 3
"""Actors in a row that may die before they are ready; then, if no other worker lives, it is given up."""

_PATIENCE_S = 30.0
"""For how long there may be no worker at all before it is said what is waited for; then again, ever later."""

_JOURNALS_S = 20.0
"""How long to wait for what nodes have journalled."""

_LOOKS = 10
"""How often a worker is asked for a sign of life during its lease."""

_log = logging.getLogger(__name__)


@dataclass
class _Move:
    """A job on its way from the worker that made its model to one of a lane."""

    job: Job
    stage: str
    carried: Any
    """Reference to the packed model."""
    source: Slot | None
    """The worker that still keeps it; None once that is free for other jobs."""
    handed: Handed | None = None
    """None while it is being packed."""


class RayRunner(Runner):
    """As many actors as the study has workers."""

    summary = "Ray actors, here or on a cluster; one per GPU"
    concurrent = True

    def __init__(self, spec: BenchSpec, run: Run, address: str | None = None) -> None:
        self._run = run
        self._started = connect(address, run.workers + len(run.lanes), run.threads)
        self._kinds = {kind.lane: kind for kind in kinds_of(spec, run, has_room)}
        if address is None:
            _check_here(run, self._kinds)
        self._shipment = None if address is None else shipment_of(spec)
        self._every_s = run.worker_lease_s / _LOOKS
        self._slots = [
            self._made(kind, kind.name(index))
            for kind in self._kinds.values()
            for index in range(kind.workers)
        ]
        self._moves: list[_Move] = []
        self._news: list[Report] = []
        """What was noticed while nobody waited."""
        self._looked = time.monotonic()
        self._said: dict[str, tuple[float, float]] = {}
        """Lane -> since when it has no worker that is ready, and after how long to say so."""

    def _made(self, kind: WorkerKind, name: str, deaths: int = 0) -> Slot:
        return Slot.of(kind, name, self._every_s, deaths, self._avoided(kind), self._shipment)

    def _avoided(self, kind: WorkerKind) -> frozenset[str]:
        """Return the nodes that are not for a kind of workers: those of lanes are for their lanes alone."""
        marks = [mark for other in self._kinds.values() for mark in other.marks]
        return nodes_with(marks) if marks and kind.lane == MAIN else frozenset()

    def start(self) -> Setup:
        timing = self._kinds.get("time", self._kinds[MAIN])
        while True:
            starting = [slot.ready for slot in self._slots if slot.ready is not None]
            ray.wait(starting, timeout=min(self._every_s, 1.0))
            self._note_ready()
            self._look()
            for slot in self._slots:
                if slot.kind is timing and slot.setup is not None:
                    return slot.setup

    def free(self) -> int:
        self._note_ready()
        return sum(slot.is_free and slot.kind.lane == MAIN for slot in self._slots)

    def submit(self, job: Job, stage: str) -> str:
        lane = stage if stage in self._kinds else MAIN
        slot = next((s for s in self._slots if s.job == job), None)
        if slot is None:
            slot = next((s for s in self._slots if s.is_free and s.kind.lane == lane), None)
        if slot is None:
            raise HpoError(f"no free worker for trial {job.number}", "submit only while free() is above 0")
        if slot.kind.lane == lane:
            slot.begin(job, stage)
            return slot.name
        self._moves.append(_Move(job, stage, slot.hand_over(job), slot))
        return lane

    def release(self, job: Job) -> None:
        self._moves = [move for move in self._moves if move.job != job]
        for slot in self._slots:
            if slot.job == job:
                slot.forget()

    def wait(self, timeout_s: float) -> list[Report]:
        self._look()
        busy = {slot.task: slot for slot in self._slots if slot.task is not None}
        starting = [slot.ready for slot in self._slots if slot.ready is not None]
        if not busy and not starting:
            time.sleep(min(timeout_s, 0.05))
        else:
            done, _ = ray.wait([*busy, *starting], timeout=0.0 if self._news else timeout_s)
            for reference in done:
                if reference in busy:
                    self._collect(busy[reference])
        self._note_ready()
        self._move_on()
        self._end_overdue()
        news, self._news = self._news, []
        return news

    def alive(self) -> dict[int, float]:
        self._look()
        waiting = {move.job.number: 0.0 for move in self._moves}
        return waiting | {s.job.number: s.pulse.silence_s for s in self._slots if s.job is not None}

    def unheard(self) -> list[tuple[Job, StageResult]]:
        asked = [slot.actor.waiting.remote() for slot in self._slots if slot.is_placed]
        done = ray.wait(asked, num_returns=len(asked), timeout=_JOURNALS_S)[0] if asked else []
        found: dict[tuple[int, int, str], tuple[Job, StageResult]] = {}
        for reference in done:
            try:
                journal = ray.get(reference)
            except RayError:  # a worker that dies has left its journal to others of its node
                continue
            for job, result in journal:
                one, told = Job.from_mapping(job), StageResult.from_mapping(result)
                found.setdefault((one.number, one.attempt, told.stage), (one, told))
        return list(found.values())

    def settle(self, jobs: Sequence[Job]) -> None:
        told = [job.to_mapping() for job in jobs]
        for slot in self._slots:
            if slot.is_placed and told:
                slot.actor.settle.remote(told)

    def close(self) -> None:
        for slot in self._slots:
            ray.kill(slot.actor)
        if self._shipment is not None:
            ray.kill(self._shipment.depot)
        if self._started:
            ray.shutdown()

    def _collect(self, slot: Slot) -> None:
        """Take what a worker has done, or hear that it is gone."""
        job, task = slot.job, slot.task
        assert job is not None
        slot.task = None
        slot.pulse.heard()
        try:
            found = ray.get(task)
        except RayTaskError as error:  # a journal on a full disk, a model that was torn on its way
            self._lose(slot, f"the worker could not go on: {first_line(str(error.cause))}")
        except RayError as error:
            self._lose(slot, first_line(str(error)))
        else:
            if isinstance(found, Handed):
                self._packed(job, found)
                return
            result = StageResult.from_mapping(found)
            slot.is_leaving = result.failure is not None and result.failure.cause is Cause.PREEMPTED
            self._news.append(Report(job, result))

    def _packed(self, job: Job, handed: Handed) -> None:
        """Note that a model is ready for a worker of a lane."""
        move = next(move for move in self._moves if move.job == job)
        move.handed = handed
        if handed.failure is not None:
            self._moves.remove(move)
            self._news.append(Report(job, StageResult(move.stage, 0.0, failure=handed.failure)))

    def _move_on(self) -> None:
        """Give what is packed to workers of its lane, and let go those who packed it."""
        for move in [move for move in self._moves if move.handed is not None]:
            taker = next((s for s in self._slots if s.is_free and s.kind.lane == move.stage), None)
            put_by = sum(m.source is None for m in self._moves if m.stage == move.stage)
            if move.source is not None and (taker or put_by < self._kinds[move.stage].workers):
                move.source.forget()
                move.source = None
            if taker is not None:
                assert move.handed is not None
                taker.begin_handed(move.job, move.stage, move.handed, move.carried)
                self._moves.remove(move)

    def _look(self) -> None:
        """Ask all workers for a sign of life, and do without those that have given none for too long."""
        now, limit = time.monotonic(), self._run.worker_lease_s
        if now - self._looked < self._every_s:
            return
        self._looked = now
        for slot in list(self._slots):
            try:
                slot.pulse.look(now)
            except RayActorError as error:
                if slot.task is None and slot.ready is None:  # else its task tells of it too
                    self._lose(slot, first_line(str(error)))
                continue
            if slot.pulse.silence_s > limit:
                self._lose(slot, f"no sign of life for {limit:g} s")
            elif slot.is_going and slot.job is None:
                self._replace(slot, "it was told to end")
            elif slot.node and slot.job is None and slot.node in self._avoided(slot.kind):
                self._replace(slot, "its node is one of a lane")  # it joined after the worker was asked for
        self._say_who_is_missing(now)

    def _lose(self, slot: Slot, why: str, timed_out: bool = False) -> None:
        """Replace a worker; tell of its job, if that is lost with it."""
        job = slot.job
        self._replace(slot, why)
        if job is None:
            return
        packed = next((move for move in self._moves if move.job == job and move.handed is not None), None)
        if packed is not None:  # the model is in Ray's store already
            packed.source = None
            return
        self._moves = [move for move in self._moves if move.job != job]
        self._news.append(Report(job, None, lost=why, timed_out=timed_out))

    def _end_overdue(self) -> None:
        """End the workers whose stage has taken too long."""
        limit = self._run.stage_timeout_s
        for slot in list(self._slots):
            if slot.task is not None and time.monotonic() - slot.since > limit:
                self._lose(slot, f"a stage took over {limit:g} s", timed_out=True)

    def _note_ready(self) -> None:
        """Move actors whose setup is done to ready; replace those that died over it."""
        waiting = {slot.ready: slot for slot in self._slots if slot.ready is not None}
        if not waiting:
            return
        done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        for reference in done:
            slot = waiting[reference]
            try:
                slot.setup = ray.get(reference)
            except RayTaskError as error:
                raise _ours(error) from None
            except RayError as error:
                self._replace(slot, str(error))
            else:
                slot.ready, slot.deaths = None, 0
                self._looked = -self._every_s  # so that it is asked where it is

    def _replace(self, slot: Slot, why: str) -> None:
        """Ask for a new actor in a worker's place.

        Raises:
            HpoError: the actors of this place die one after the other before they are ready, on nodes that
                live, and there is no other worker.
        """
        if not slot.is_going:  # that one ends by itself, with its journal in order
            ray.kill(slot.actor)  # it may be out of reach only, and hold its GPU
        died = slot.ready is not None and self._is_its_own_fault(slot)
        deaths = slot.deaths + int(died)
        if deaths > _RESTARTS and not any(other.ready is None for other in self._slots if other is not slot):
            raise HpoError(
                f"{slot.name} died {deaths} times before it was ready: {first_line(why)}",
                "see the Ray logs of the session; is there enough memory for the model?",
            )
        self._slots[self._slots.index(slot)] = self._made(slot.kind, slot.name, deaths)

    def _is_its_own_fault(self, slot: Slot) -> bool:
        """Whether an actor died while its node lived, as far as that is known."""
        if slot.is_going or slot.node in self._avoided(slot.kind) or (slot.node and is_gone(slot.node)):
            return False
        return has_room(slot.kind.wanted)

    def _say_who_is_missing(self, now: float) -> None:
        """Log what is waited for while a lane has no worker at all; a cluster may grow."""
        for lane, kind in self._kinds.items():
            if any(slot.node for slot in self._slots if slot.kind is kind):
                self._said.pop(lane, None)
                continue
            since, patience = self._said.setdefault(lane, (now, _PATIENCE_S))
            if now - since > patience:
                self._said[lane] = (since, 2 * patience)
                _log.warning("%s", _missing(kind, now - since))


def _check_here(run: Run, kinds: Mapping[str, WorkerKind]) -> None:
    """Refuse workers that this machine has no device for: nothing will join a Ray that is started here.

    Raises:
        HpoError: saying what is lacking.
    """
    if run.device == "cuda" and not has_room({"GPU": run.gpus_per_worker}):
        raise HpoError("the study asks for cuda, but Ray on this machine has no GPU", "set run.device: cpu")
    for lane, kind in kinds.items():
        if lane != MAIN and not has_room(kind.wanted):
            raise HpoError(
                f"run.lanes.{lane} asks for {kind}, but Ray on this machine has {what_there_is()}",
                "join the cluster that has them with --ray-address, or drop run.lanes to time here",
            )


def _missing(kind: WorkerKind, seconds: float) -> str:
    what = f"workers for the stage {kind.lane}" if kind.lane else "workers"
    return (
        f"for {seconds:.0f} s there have been no {what}: {kind} are asked for, the cluster has "
        f"{what_there_is()}; waiting for them to start, or for nodes with room to join"
    )


def _ours(error: RayTaskError) -> HpoError:
    """Return the error a worker raised, as itself where it is ours."""
    cause = error.cause
    if isinstance(cause, HpoError):
        return cause
    return HpoError(f"a worker could not be set up: {first_line(str(cause))}", "")
