"""What a coordinator finds when it takes a study over, and what becomes of it."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpo.run.job import StageResult
from hpo.run.ledger import Ledger
from hpo.run.review import review
from hpo.run.runner import Runner
from hpo.run.terms import Terms
from hpo.store.values import EventKind
from hpo.trial import Cause, Measurement, StageTime, Trial, TrialState


@dataclass(frozen=True)
class Recovered:
    """Numbers of the trials that something was done about."""

    requeued: tuple[int, ...] = ()
    """They were running, and nobody knows what came of it: they run again."""
    adopted: tuple[int, ...] = ()
    """They were running, and their results waited in a worker's journal."""
    dropped: tuple[int, ...] = ()
    """A journal held results of attempts that are over; they count no more."""
    reopened: tuple[int, ...] = ()
    """Measured again, for what they lack on this device or under these objectives."""
    revised: tuple[int, ...] = ()
    """Left with what was once measured on this device, and without what was on another."""

    def lines(self) -> tuple[str, ...]:
        """Return what happened in words, a line for each kind."""
        told = (
            ("back in the queue, for nobody knows what came of them", self.requeued),
            ("adopted from the journals of workers", self.adopted),
            ("dropped, late results of attempts that are over", self.dropped),
            ("to be measured again on this device or for a new objective", self.reopened),
            ("with what was measured on this device only; what was on another is kept apart", self.revised),
        )
        return tuple(f"trials {_list(numbers)}: {what}" for what, numbers in told if numbers)


_SHOWN = 12


def _list(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return ", ".join(map(str, numbers[:_SHOWN])) + more


def recover(ledger: Ledger, runner: Runner, terms: Terms) -> Recovered:
    """Settle what an earlier coordinator left: running trials, unheard results, figures on other terms."""
    adopted: list[int] = []
    requeued: list[int] = []
    unheard, dropped = _unheard(ledger, runner)
    for trial in ledger.in_state(TrialState.RUNNING):
        results = unheard.get(trial.number, [])
        (adopted if _adopt(ledger, trial, results) else requeued).append(trial.number)
    # What is stored, or was found to be of no use, need not be told again.
    runner.settle([job for job, _ in runner.unheard()])
    reopened, revised = _reviewed(ledger, terms)
    return Recovered(tuple(requeued), tuple(adopted), tuple(dropped), tuple(reopened), tuple(revised))


def _unheard(ledger: Ledger, runner: Runner) -> tuple[dict[int, list[StageResult]], list[int]]:
    """Return the results of running attempts that the store does not have, and the numbers of others."""
    waiting: dict[int, list[StageResult]] = defaultdict(list)
    dropped: dict[int, None] = {}
    for job, result in runner.unheard():
        trial = ledger.get(job.number)
        if trial is None or (trial.attempt, trial.plan_hash) != (job.attempt, job.plan_hash):
            if not result.following:  # a stage in the middle would have been of no use anyway
                dropped[job.number] = None
        elif trial.state is not TrialState.RUNNING:
            pass  # stored before the journal was cleared
        elif result.stage not in {stage.stage for stage in trial.stages}:
            waiting[job.number].append(result)
    return waiting, list(dropped)


def _adopt(ledger: Ledger, trial: Trial, results: Sequence[StageResult]) -> bool:
    """Record what a worker did while nobody listened; return whether the trial is over with that.

    Otherwise it goes back into the queue: the model that the worker had is gone with it. What it has done
    is counted all the same.
    """
    for result in results:
        if result.failure is not None and result.failure.cause is Cause.PREEMPTED:
            break
        stage = StageTime(result.stage, result.seconds, result.joules)
        trial = trial.advanced(stage, result.measurements, result.notes)
        if result.failure is not None:
            failure = result.failure
            ledger.save(trial.failed(failure.cause, failure.message, time.time()), EventKind.FAILED, _ADOPTED)
            return True
        if not result.following:
            ledger.save(trial.completed(time.time()), EventKind.COMPLETED, _ADOPTED)
            return True
        ledger.save(trial, EventKind.STAGE_DONE, {**asdict(stage), **_ADOPTED})
    ledger.save(trial.requeued(), EventKind.REQUEUED, {"why": "the coordinator that ran it is gone"})
    return False


_ADOPTED = {"adopted": True}


def _reviewed(ledger: Ledger, terms: Terms) -> tuple[list[int], list[int]]:
    """Set completed trials right for the terms of now; return those to measure again and those set aside."""
    found = review(ledger.trials, terms, ledger.front_members, lambda: ledger.trials_on(terms.device))
    for trial, left in found.reopened:
        payload = {"why": _why(trial, left, terms), **last_stage(trial)}
        ledger.save(trial.reopened(left), EventKind.REOPENED, payload)
    for trial, left in found.revised:
        payload = {"why": _why(trial, left, terms), **last_stage(trial)}
        ledger.save(trial.revised(left), EventKind.REVISED, payload)
    ledger.renew_front()
    return [t.number for t, _ in found.reopened], [t.number for t, _ in found.revised]


def _why(trial: Trial, left: Sequence[Measurement], terms: Terms) -> str:
    gone = dict.fromkeys(m.metric for m in trial.measurements if m not in left)
    without = dict.fromkeys(metric for metric in terms.missing(trial) if metric not in gone)
    back = dict.fromkeys(m.metric for m in left if m not in trial.measurements)
    told = [f"{', '.join(gone)} of another device"] if gone else []
    told += [f"{', '.join(back)} as once measured here"] if back else []
    told += [f"no {', '.join(m for m in without if m not in back)}"] if set(without) - set(back) else []
    return "; ".join(told)


def last_stage(trial: Trial) -> dict[str, Any]:
    """Return the stage with which an attempt ended, which no event tells of so far."""
    return asdict(trial.stages[-1]) if trial.stages else {}
