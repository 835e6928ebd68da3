"""Launch and resume: every check that can be made before a trial runs, then the coordinator."""

import hashlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from hpo import registry
from hpo.compress.recipe import check_space
from hpo.errors import HpoError, InvalidStudy, UsageError
from hpo.models.depth import block_count
from hpo.models.source import check_source
from hpo.problem import Problem
from hpo.run.bench import BenchSpec, Setup
from hpo.run.coordinator import Coordinator, Outcome
from hpo.run.drift import Drift, drifts, refuse
from hpo.run.earlier import USED, check_named, facts, warm_start
from hpo.run.lease import take_lease
from hpo.run.ledger import Listener
from hpo.run.more import More, amended
from hpo.run.preview import check_reachable, problem_of
from hpo.run.runner import Runner
from hpo.search.grid import check_countable
from hpo.search.warm_start import WarmStart
from hpo.store.spending import gpus_of
from hpo.store.store import Store
from hpo.store.values import EventKind, Request
from hpo.study import Study, no_gpu_hours

WORKBENCH = "hpo.run.workbench:Workbench"


@dataclass(frozen=True)
class Watcher:
    """Who wants to hear what: how far set-up is, and what happens to trials."""

    say: Callable[[str], None]
    listener: Listener


def check_study(study: Study) -> None:
    """Refuse what can be seen to be wrong without loading a weight: knobs, given candidates, model path.

    Raises:
        InvalidStudy: with its path in the document.
    """
    check_space(study.space)
    if study.search.sampler == "grid":
        check_countable(study.space)
    for index, values in enumerate(study.search.first):
        if study.space.has_templates:
            break  # they are checked once the model's depth is known
        try:
            study.space.candidate(values)
        except InvalidStudy as error:
            where = ("search", "first", index, *error.where)
            raise InvalidStudy(error.message, error.hint, where) from None
    check_source(study.model)


def for_model(study: Study) -> Study:
    """Return the study for its model: parameters that there is one of for each block are spelt out.

    Raises:
        ModelError: the model's configuration does not tell its number of blocks.
    """
    if not study.space.has_templates:
        return study
    resolved = study.model_copy(update={"space": study.space.for_blocks(block_count(study.model))})
    check_study(resolved)
    return resolved


def check_energy(study: Study, counter: str) -> None:
    """Refuse an energy objective on a machine without a counter, unless a model of it is allowed.

    Raises:
        InvalidStudy: naming what would allow it.
    """
    for index, objective in enumerate(study.objectives):
        if objective.metric == "energy" and not counter and not objective.allow_modelled:
            raise InvalidStudy(
                "energy cannot be measured here: no NVML and no readable RAPL counter",
                "set allow_modelled: true beside the metric to accept a modelled value (marked as such)",
                ("objectives", index),
            )


def check_budget(study: Study, setup: Setup) -> None:
    """Refuse a budget in what cannot be counted on the workers' device.

    Raises:
        InvalidStudy: naming what could be given instead.
    """
    if study.budget.gpu_hours is not None and not gpus_of(setup.device, study.run.gpus_per_worker):
        raise no_gpu_hours(f"the workers run on {setup.device!r}")
    if study.budget.joules is None:
        return
    if not setup.energy_counter:
        raise InvalidStudy(
            "joules cannot be counted here: no NVML and no readable RAPL counter (hpo doctor shows them)",
            "give budget.hours, gpu_hours or trials instead; a modelled energy is no measured one",
            ("budget", "joules"),
        )
    if setup.energy_counter == "rapl" and study.run.workers > 1:
        raise InvalidStudy(
            f"joules cannot be counted for each of {study.run.workers} workers on processors: "
            "the counter is the whole machine's",
            "set run.workers to 1, or give budget.hours or budget.trials instead",
            ("budget", "joules"),
        )


def check_setup(study: Study, setup: Setup) -> Problem:
    """Refuse what only the loaded model can tell; return the problem to search.

    Raises:
        InvalidStudy: a limit nothing can meet, an energy that cannot be had, a budget nobody can count.
    """
    check_energy(study, setup.energy_counter)
    check_budget(study, setup)
    if setup.profile is None:
        raise HpoError("the workers came up without a model profile", "use the workbench as their bench")
    problem = problem_of(study, setup.profile, setup.energy_counter)
    check_reachable(study, setup.profile, problem)
    return problem


@contextmanager
def started(store: Store, study: Study, address: str | None) -> Iterator[tuple[Runner, Setup]]:
    """Start the study's runner and hand out its set-up; end the workers on the way out."""
    # By the store and the name: the study itself may change, and its workers' journals are to be found again.
    journal = hashlib.sha256(f"{store.url} {study.name}".encode()).hexdigest()[:32]
    spec = BenchSpec(WORKBENCH, study.to_mapping(), journal=journal)
    runner: Runner = registry.load("runner", study.run.runner)(spec, study.run, address)
    try:
        yield runner, runner.start()
    finally:
        runner.close()


def launch(store: Store, study: Study, watcher: Watcher, address: str | None = None) -> Outcome:
    """Check everything, create the study, and run it. Nothing is written if a check fails.

    Raises:
        UsageError: the name is taken, or the study is wrong.
    """
    refuse_taken(store, study.name)
    check_study(study)
    study = for_model(study)
    check_named(store, study)
    watcher.say(f"starting {study.run.workers} worker(s) and profiling {study.model.source}")
    with started(store, study, address) as (runner, setup):
        problem = check_setup(study, setup)
        warm = warm_start(store, study, problem, {})
        store.create_study(study, provenance(setup) | facts(store, warm), time.time())
        return _coordinate(store, study, runner, setup, problem, warm, watcher)


def refuse_taken(store: Store, name: str) -> None:
    """Refuse a study name that exists.

    Raises:
        UsageError: saying how to resume it.
    """
    taken = next((s for s in store.studies() if s.name == name), None)
    if taken is not None:
        raise UsageError(
            f"there is already a study {name!r} in {store.url}, {taken.state}",
            f"resume it with: hpo resume {name}, or choose another name with --name",
        )


def resume(
    store: Store, name: str, watcher: Watcher, *, more: More | None = None, address: str | None = None
) -> Outcome:
    """Go on with a study where it stopped, with a bigger budget if `more` has one.

    Raises:
        UsageError: it is finished and no more budget was given, or the budget is smaller than before.
        HpoError: the model, its texts or the versions are not those that its figures come from.
    """
    more = more or More()
    record = store.study(name)
    study = amended(record, more)
    watcher.say(f"starting {study.run.workers} worker(s) and profiling {study.model.source}")
    with started(store, study, address) as (runner, setup):
        problem = check_setup(study, setup)
        # A study that was only submitted has no environment yet.
        drifted = drifts(record.environment, provenance(setup))
        if not more.allow_drift:
            refuse(name, drifted)
        warm = warm_start(store, study, problem, record.environment)
        return _coordinate(store, study, runner, setup, problem, warm, watcher, drifted)


def provenance(setup: Setup) -> dict[str, str]:
    """Return what a study's figures come from: versions, machine, device, model and texts."""
    profile = "" if setup.profile is None else setup.profile.key
    return {
        **setup.environment,
        "device": setup.device,
        "profile": profile,
        "energy_counter": setup.energy_counter or "none",
    }


def _coordinate(
    store: Store,
    study: Study,
    runner: Runner,
    setup: Setup,
    problem: Problem,
    warm: WarmStart | None,
    watcher: Watcher,
    drifted: Sequence[Drift] = (),
) -> Outcome:
    lease = take_lease(store, study.name)
    store.request(study.name, Request.NONE, time.time())  # what was asked of an earlier coordinator
    record = store.study(study.name)
    now = provenance(setup)
    if not record.environment:  # submitted as a job, and begun only now
        store.set_environment(lease, now | facts(store, warm), time.time())
    elif drifted or any(record.environment.get(key) != value for key, value in now.items()):
        for drift in drifted:
            watcher.say(f"going on all the same: {drift}")
        told = {"drift": [drift.to_mapping() for drift in drifted], "before": dict(record.environment)}
        store.note(lease, EventKind.NOTE, time.time(), payload=told)
        store.set_environment(lease, {**record.environment, **now}, time.time())
    if record.study != study:
        store.replace_study(lease, study, "resumed with another budget or rule", time.time())
    if used := store.study(study.name).environment.get(USED):
        watcher.say(f"warm start from {used}")
    coordinator = Coordinator(
        store, study, runner, setup, problem, lease, watcher.listener, warm, watcher.say
    )
    with _signals(coordinator, watcher.say):
        return coordinator.run()


@contextmanager
def _signals(coordinator: Coordinator, say: Callable[[str], None]) -> Iterator[None]:
    """First Ctrl-C: drain. Second, or SIGTERM: cancel. Either way the study resumes."""

    def interrupted(number: int, frame: FrameType | None) -> None:
        coordinator.interrupt()
        say("stopping: running trials finish first; Ctrl-C again cancels them")

    def terminated(number: int, frame: FrameType | None) -> None:
        coordinator.cancel()

    before = signal.signal(signal.SIGINT, interrupted), signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
