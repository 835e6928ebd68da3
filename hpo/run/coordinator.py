"""The coordinator: one loop that asks, submits, listens and records. It holds the study's lease.

Everything it knows it can rebuild from the store: killed at any moment, the next coordinator puts
what was running back into the queue and goes on.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hpo.compress.planner import plan_of
from hpo.errors import HpoError
from hpo.measure.quiet import QuietNode
from hpo.problem import Problem
from hpo.run.asking import Asker
from hpo.run.bench import Setup
from hpo.run.ending import Ending
from hpo.run.heartbeat import LEASE_S, Heartbeat
from hpo.run.job import FIRST_STAGE, Job, StageResult
from hpo.run.ledger import Ledger, Listener
from hpo.run.lineage import PARENT, parent_of
from hpo.run.phases import Phases
from hpo.run.recovery import recover
from hpo.run.runner import Report, Runner
from hpo.run.stock import Stock
from hpo.run.terms import Terms
from hpo.run.tries import Tries
from hpo.run.turn import Turn
from hpo.run.wishes import Wishes, plan_of_wish
from hpo.search.botorch_import import importing_botorch
from hpo.search.refining import promotion
from hpo.search.warm_start import WarmStart
from hpo.skill import Skill
from hpo.space import Candidate
from hpo.store.store import Store
from hpo.store.values import TRIAL_LEASE_S, EventKind, Lease, Request, StudyState, Wish
from hpo.study import Study
from hpo.trial import Cause, LayerRecord, StageTime, Trial, TrialState

if TYPE_CHECKING:
    from hpo.search.screening import Screening

HOPELESS = 5
"""A study whose first so many trials all fail is stopped."""

_POLL_S = 0.5
"""How often requests from outside are looked for."""

_GLANCE_S = 0.02
"""How long workers are listened to at a time while an ask is under way, and the ask while slots are free."""

_BANK_H = 1 / 120
"""How often, in hours of its run, a coordinator stores how many it has taken."""


def _unsaid(text: str) -> None:
    """Tell nobody."""


def _curve(result: StageResult) -> dict[str, Any]:
    """Return what an event keeps of how a healing went; nothing of a stage that heals nothing."""
    return {} if result.curve is None else {"curve": result.curve.to_mapping()}


@dataclass(frozen=True)
class Outcome:
    """How a run of the coordinator ended."""

    state: StudyState
    message: str
    interrupted: bool = False
    """By Ctrl-C or SIGTERM here, rather than by a request through the store."""


class Coordinator:
    """Runs one study until its budget is used, it is asked to stop, or it is hopeless."""

    def __init__(
        self,
        store: Store,
        study: Study,
        runner: Runner,
        setup: Setup,
        problem: Problem,
        lease: Lease,
        listener: Listener,
        warm: WarmStart | None = None,
        say: Callable[[str], None] = _unsaid,
    ) -> None:
        self._store, self._study, self._runner = store, study, runner
        self._setup, self._problem, self._lease, self._say = setup, problem, lease, say
        self._ledger = Ledger(store, lease, problem, listener)
        phases = Phases(study, lambda: self._ending.used(self._hours()))
        turn = Turn()
        asker = Asker(turn.sharing(problem), study.search, warm, phases)
        self._stock = Stock(asker, apart=runner.concurrent, turn=turn)
        self._screening: Screening | None = None
        self._machine = QuietNode()
        self._wishes = Wishes(store, study.name)
        self._skills: tuple[Skill, ...] = ()
        self._queue: list[Trial] = []
        self._held: list[Report] = []
        self._tries = Tries(store, study)
        self._exhausted = False
        self._request = Request.NONE
        self._interrupted = False
        self._polled = -_POLL_S
        self._since = time.monotonic()
        self._banked = 0.0
        self._ending = Ending(study, setup.device, store.study(study.name).hours, self._ledger)
        self._begun: dict[int, float] = {}
        """Trial number -> when the stage that it is in was submitted."""
        self._renewed = time.monotonic()

    def interrupt(self) -> None:
        """React to Ctrl-C: the first drains, the second cancels. Safe to call from a signal handler."""
        self._request = Request.CANCEL if self._request is Request.DRAIN else Request.DRAIN
        self._interrupted = True

    def cancel(self) -> None:
        """End now; running trials go back to the queue. Safe to call from a signal handler."""
        self._request = Request.CANCEL
        self._interrupted = True

    def run(self) -> Outcome:
        """Work until there is a reason to end; leave the store resumable whatever happens.

        Raises:
            StoreError: the lease is lost or the store stays out of reach.
        """
        with Heartbeat(self._store, self._lease, LEASE_S) as heartbeat:
            self._store.set_state(self._lease, StudyState.RUNNING, "", time.time())
            self._recover()
            try:
                outcome = self._loop(heartbeat)
            finally:
                self._bank_hours()
            self._store.set_state(self._lease, outcome.state, outcome.message, time.time())
        self._store.release(self._lease, time.time())
        return outcome

    def _recover(self) -> None:
        """Settle what an earlier coordinator left unfinished, and queue what is to run."""
        terms = Terms.of(self._study.objectives, self._setup.device, self._setup.energy_counter)
        for line in recover(self._ledger, self._runner, terms).lines():
            self._say(line)
        self._queue = self._ledger.in_state(TrialState.WAITING)

    def _loop(self, heartbeat: Heartbeat) -> Outcome:
        while True:
            heartbeat.check()
            self._poll()
            self._renew_trials()
            if self._hours() - self._banked >= _BANK_H:
                self._bank_hours()
            if self._request is Request.CANCEL:
                self._requeue_running()
                return Outcome(StudyState.STOPPED, "cancelled", self._interrupted)
            if hopeless := self._hopeless() or self._ending.blind():
                self._requeue_running()
                return Outcome(StudyState.FAILED, hopeless)
            over = self._ending.over(self._hours())
            going = not over and self._request is not Request.DRAIN
            if going:
                self._fill()
            running = self._ledger.in_state(TrialState.RUNNING)
            if not running and (end := self._end(over)):
                return end
            for report in self._news():
                self._handle(report)
                if going and self._request is Request.NONE and not self._ending.over(self._hours()):
                    self._begin(self._runner.free() - len(self._queue))  # before the next is written down

    def _poll(self) -> None:
        if time.monotonic() - self._polled >= _POLL_S:
            self._polled = time.monotonic()
            asked = self._store.requested(self._study.name)
            if asked is Request.CANCEL or self._request is Request.NONE:
                self._request = asked
            for wish in self._wishes.new():
                self._answer(wish)

    def _renew_trials(self) -> None:
        """Let those whose workers have been heard of lately count as alive."""
        if time.monotonic() - self._renewed >= TRIAL_LEASE_S / 3:
            self._renewed = time.monotonic()
            if heard := [number for number, s in self._runner.alive().items() if s < TRIAL_LEASE_S / 3]:
                self._ledger.renew_trials(heard)

    def _answer(self, wish: Wish) -> None:
        """Put the trial that a person asked for first in the queue, or say why not."""
        answer: dict[str, Any] = {"wish": wish.id}
        try:
            candidate, plan = plan_of_wish(self._problem, self._ledger.trials, wish)
            if self._budget_left() == 0:
                raise HpoError("the budget of trials is used")
        except HpoError as error:
            answer["refused"] = str(error)
        else:
            trial = self._ledger.add(candidate, wish.origin, plan, self._layers(candidate))
            self._queue.insert(0, trial)
            answer["trial"] = trial.number
        self._store.note(self._lease, EventKind.ANSWERED, time.time(), payload=answer)

    def _hours(self) -> float:
        """Return for how long this run has been going on."""
        return (time.monotonic() - self._since) / 3600

    def _bank_hours(self) -> None:
        """Store the hours since last time, so that a run that is killed has spent them too."""
        hours = self._hours()
        self._store.add_hours(self._lease, hours - self._banked)
        self._banked = hours

    def _end(self, over: str) -> Outcome | None:
        """Return how the study ends if nothing runs and nothing more will; `over` says why, if known."""
        if self._request is Request.DRAIN:
            return Outcome(StudyState.STOPPED, "drained", self._interrupted)
        if not self._queue and self._budget_left() == 0:
            over = over or f"the budget of trials is used: {len(self._ledger)} of {self._study.budget.trials}"
        elif not self._queue and self._exhausted:
            over = over or "the space holds no more plans"
        if over and not self._queue and not self._ledger.in_state(TrialState.COMPLETED):
            return Outcome(StudyState.FAILED, "no trial was completed: " + self._last_failure())
        return Outcome(StudyState.FINISHED, over) if over else None

    def _budget_left(self) -> int | None:
        """Return how many trials may still be asked; None without a budget of trials."""
        budget = self._study.budget.trials
        return None if budget is None else max(budget - len(self._ledger), 0)

    def _fill(self) -> None:
        """Give every free worker something to do."""
        free = self._runner.free()
        while free > 0 and self._queue:
            self._start(self._queue.pop(0))
            free -= 1
        begun = self._begin(free)
        while not self._exhausted and not self._held:
            free -= begun
            self._stock.order(self._ledger.trials, free, len(self._queue), self._budget_left())
            if not (begun := self._begin(free)):  # a quick answer is there already
                break
        self._exhausted = self._stock.exhausted
        if (skills := self._stock.skills) != self._skills:
            self._skills = skills
            self._ledger.judge_model(skills)

    def _begin(self, free: int) -> int:
        """Start as many proposals as are ready and wanted; return how many."""
        left = self._budget_left()
        proposals = self._stock.take(self._ledger.trials, free if left is None else min(free, left))
        for origin, candidate, plan_hash in proposals:
            self._start(self._ledger.add(candidate, origin, plan_hash, self._layers(candidate)))
        return len(proposals)

    def _news(self) -> list[Report]:
        """Return what has happened, and be there for the ask under way: neither waits for the other."""
        if self._held and not self._stock.busy:
            held, self._held = self._held, []
            return held
        if self._stock.busy and self._runner.free() > 0:
            self._stock.wait(_GLANCE_S)
            return self._runner.wait(0.0)
        return self._runner.wait(min(max(self._stock.rest_s, _GLANCE_S), _POLL_S))

    def _layers(self, candidate: Candidate) -> tuple[LayerRecord, ...]:
        if self._setup.profile is None:  # a bench without a model has no layers to tell of
            return ()
        return plan_of(self._setup.profile, candidate).records()

    def _start(self, trial: Trial) -> None:
        parent = self._parent(trial)
        job = Job(
            trial.number,
            trial.attempt,
            trial.candidate,
            trial.plan_hash,
            parent=parent.number if parent else None,
            parent_plan=parent.plan_hash if parent else "",
            known=tuple(dict.fromkeys(m.metric for m in trial.measurements[: trial.kept])),
        )
        worker = self._submit(job, FIRST_STAGE)
        self._ledger.save(trial.started(worker, time.time()), EventKind.STARTED, {"worker": worker})

    def _parent(self, trial: Trial) -> Trial | None:
        """Return the trial from which a healing starts; one that is done again starts from the same."""
        if trial.kept and PARENT in trial.notes:
            return self._ledger.get(int(trial.notes[PARENT]))
        return parent_of(self._problem, self._ledger.trials, trial.candidate)

    def _submit(self, job: Job, stage: str) -> str:
        worker = self._runner.submit(job, stage)
        self._begun[job.number] = time.monotonic()
        return worker

    def _broken_off(self, trial: Trial) -> dict[str, float]:
        """Return for how long a trial has been in a stage that comes to no end."""
        begun = self._begun.pop(trial.number, None)
        return {} if begun is None else {"seconds": time.monotonic() - begun}

    def _handle(self, report: Report) -> None:
        trial = self._ledger[report.job.number]
        if trial.state is not TrialState.RUNNING or trial.attempt != report.job.attempt:
            self._ledger.note(EventKind.CONFLICT, trial, {"why": "news of an attempt that is over"})
        elif report.result is None:
            self._lost(trial, report)
        elif self._stock.busy and self._judged(report.result):
            # BoTorch's settings and torch's random numbers belong to the process: one model at a time.
            self._held.append(report)
        else:
            self._advance(trial, report.job, report.result)

    def _advance(self, trial: Trial, job: Job, result: StageResult) -> None:
        if result.failure is not None and result.failure.cause is Cause.PREEMPTED:
            self._preempted(trial, job, result)
            return
        stage = StageTime(result.stage, result.seconds, result.joules)
        trial = trial.advanced(stage, result.measurements, result.notes)
        if result.failure is not None:
            cause, message = result.failure.cause, result.failure.message
            self._ledger.save(trial.failed(cause, message, time.time()), EventKind.FAILED)
        elif result.following and (why := self._hopeless_trial(trial, result)):
            payload = {"after": stage.stage, **_curve(result)}
            self._ledger.save(trial.stopped(why, time.time()), EventKind.STOPPED, payload)
        elif result.following:
            self._ledger.save(trial, EventKind.STAGE_DONE, {**asdict(stage), **_curve(result)})
            self._submit(job, result.following)
            return
        else:
            self._ledger.save(trial.completed(time.time()), EventKind.COMPLETED)
        self._runner.release(job)  # only now: until it is stored, the worker's journal keeps the result

    def _preempted(self, trial: Trial, job: Job, result: StageResult) -> None:
        """Queue a trial whose worker was told to go; that is no fault of its own and uses up no attempt."""
        assert result.failure is not None
        payload = {"why": result.failure.message, "cause": str(Cause.PREEMPTED), "seconds": result.seconds}
        self._queue.append(self._ledger.save(trial.requeued(), EventKind.REQUEUED, payload))
        self._runner.release(job)

    def _judged(self, result: StageResult) -> bool:
        """Whether what a stage has shown may end its trial."""
        shown = result.following and set(result.notes) & set(self._problem.tiers)
        return bool(shown) and self._study.search.stopping != "none"

    def _hopeless_trial(self, trial: Trial, result: StageResult) -> str:
        """Return why a trial is not worth going on with after what its last stage has shown, else nothing."""
        if set(result.notes) & set(self._problem.tiers[:1]) and (
            why := promotion(self._problem, self._ledger.trials, trial)
        ):
            return why
        if not self._judged(result):
            return ""
        if self._screening is None:
            with importing_botorch():
                from hpo.search.screening import Screening
            self._screening = Screening(self._problem)
        with self._machine.working():  # timings of other workers go first
            return self._screening.verdict(self._ledger.trials, trial)

    def _lost(self, trial: Trial, report: Report) -> None:
        """Try a trial again whose worker is gone, until its attempts are used."""
        cause = Cause.TIMED_OUT if report.timed_out else Cause.LOST_WORKER
        lost = {"worker": trial.worker, "why": report.lost, "cause": str(cause), **self._broken_off(trial)}
        self._ledger.note(EventKind.LOST, trial, lost)
        tries = self._tries.count(trial.number, cause)
        if tries < self._study.run.attempts:
            again = self._ledger.save(trial.requeued(), EventKind.REQUEUED, {"why": report.lost})
            self._queue.append(again)
            return
        tried = f"{report.lost} (tried {tries} times)"
        self._ledger.save(trial.failed(cause, tried, time.time()), EventKind.FAILED)

    def _requeue_running(self) -> None:
        for trial in self._ledger.in_state(TrialState.RUNNING):
            payload = {"why": "the study was stopped", **self._broken_off(trial)}
            self._ledger.save(trial.requeued(), EventKind.REQUEUED, payload)

    def _hopeless(self) -> str:
        first = self._ledger.trials[:HOPELESS]
        if len(first) < HOPELESS or any(trial.state is not TrialState.FAILED for trial in first):
            return ""
        return f"the first {HOPELESS} trials all failed: {self._last_failure()}"

    def _last_failure(self) -> str:
        failed = self._ledger.in_state(TrialState.FAILED)
        return f"{failed[-1].cause}: {failed[-1].message}" if failed else "none was begun"
