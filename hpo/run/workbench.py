"""A worker's bench: the dense model, its profile and the texts, kept warm between trials.

Stages of a trial::

    compress   slice cached factors into a copy of the model that shares all other weights
    screen     how far its predictions are from the dense model's, on little text
    heal       train the factors for a while (skipped where the candidate does not ask for it)
    heal_on    the rest of a longer healing
    measure    quality and memory
    time       latency and energy, with the machine held quiet (skipped where nothing is timed)

A job of which some metrics are known already is not screened, and ends where nothing is left to measure.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from hpo import registry
from hpo.compress.applying import compressed, healed, healing
from hpo.compress.bases import PLAIN
from hpo.compress.cache_shapes import kv_cache_bytes
from hpo.compress.keeper import Keeper, Preempted
from hpo.compress.method import Healed, Healing
from hpo.compress.plan import Plan
from hpo.compress.planner import plan_of, preparations_for
from hpo.compress.profile import ModelProfile
from hpo.compress.profiling import Profiler
from hpo.compress.recipe import values_of
from hpo.compress.surgery import rebuilding
from hpo.compress.trained import trained
from hpo.compress.warm import has_healed
from hpo.errors import HpoError
from hpo.measure.counters import counter_available
from hpo.measure.device import environment, fingerprint, resolve
from hpo.measure.meter import StageMeter
from hpo.measure.probe import Cost, Probe, Subject
from hpo.measure.quiet import QuietNode
from hpo.measure.screen import screen_kl
from hpo.models.dense import DenseModel, load_model
from hpo.models.remote_code import trusted
from hpo.models.text import Corpus, Role, check_disjoint, read_corpus
from hpo.run.asked import Asked
from hpo.run.bench import Bench, Setup
from hpo.run.carried import pack, unpack
from hpo.run.causes import failure_of
from hpo.run.job import FIRST_STAGE, HEAL_NLL_AFTER, HEAL_NLL_SHORT, SCREEN_KL, TIERS, Job, StageResult
from hpo.run.lineage import PARENT
from hpo.space import Candidate
from hpo.study import Study
from hpo.trial import Measurement, Note

ANCHORS_NEED = (PLAIN,)
"""What the anchors need prepared in every study."""


class Workbench(Bench):
    """Everything a worker does with real models. Made from a study's document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.study = Study.from_mapping(document)
        self._asked = Asked(self.study.objectives)
        torch.set_num_threads(self.study.run.threads)
        self._job: Job | None = None
        self._plan: Plan | None = None
        self._model: nn.Module | None = None
        self._healing: Healing | None = None
        """One that has paused."""
        self._trained: tuple[str, Profiler] | None = None
        self._leaving = False
        self._keeper = Keeper(lambda: self._leaving)

    @cached_property
    def device(self) -> str:
        return resolve(self.study.run.device)

    @cached_property
    def dense(self) -> DenseModel:
        return load_model(self.study.model, self.device)

    @cached_property
    def context(self) -> int:
        return self.dense.window(self.study.data.context)

    @cached_property
    def calibration(self) -> Corpus:
        return read_corpus(self.study.data.calibration, Role.CALIBRATION, self.dense.tokenizer, self.context)

    @cached_property
    def evaluation(self) -> Corpus:
        return read_corpus(self.study.data.evaluation, Role.EVALUATION, self.dense.tokenizer, self.context)

    @cached_property
    def profile(self) -> ModelProfile:
        wanted = preparations_for(self.study.space, ANCHORS_NEED)
        return self._profiler.profile(wanted)

    @cached_property
    def _profiler(self) -> Profiler:
        return Profiler(self.dense, self.calibration, self.context)

    def _base(self, plan: Plan) -> Profiler:
        """Return the model that a plan compresses: the dense one, or what its training made of it."""
        if plan.train is None:
            return self._profiler
        if self._trained is None or self._trained[0] != plan.train.key:
            self._trained = None  # one at a time: each is as large as the dense model
            base = trained(self.dense, self.calibration, plan.train)
            self._trained = plan.train.key, Profiler(base, self.calibration, self.context)
        return self._trained[1]

    def setup(self) -> Setup:
        """Load the model and texts and profile the model; minutes the first time, seconds after that."""
        check_disjoint(self.calibration, self.evaluation)
        return Setup(
            profile=self.profile,
            device=fingerprint(self.device, self.study.run.threads),
            environment=environment() | trusted(self.study.model) | {"evaluation": self.evaluation.digest},
            energy_counter=counter_available(self.device) or "",
        )

    def run(self, job: Job, stage: str) -> StageResult:
        started = time.perf_counter()
        try:
            self._check_staying()
            with self._meter.stage():
                result = self._stages[stage](job)
        except Exception as error:  # whatever happens in a trial is that trial's result
            result = StageResult(stage, 0.0, failure=failure_of(error))
        return replace(result, seconds=time.perf_counter() - started, joules=self._meter.joules)

    @cached_property
    def _meter(self) -> StageMeter:
        run, on_gpu = self.study.run, self.device != "cpu"
        return StageMeter(self.device, alone=run.gpus_per_worker >= 1 if on_gpu else run.workers == 1)

    @cached_property
    def _stages(self) -> Mapping[str, Callable[[Job], StageResult]]:
        return {
            FIRST_STAGE: self._compress,
            "screen": self._screen,
            "heal": self._heal,
            "heal_on": self._heal_on,
            "measure": self._measure,
            "time": self._time,
        }

    def forget(self) -> None:
        if self._healing is not None:
            self._healing.close()
        if not self._leaving:  # otherwise the trial goes on elsewhere
            self._keeper.remove()
        self._job = self._plan = self._model = self._healing = None
        if self.device != "cpu":
            torch.cuda.empty_cache()

    def preempt(self) -> None:
        """End a healing at its next step, with a checkpoint, and anything else where that loses little: a
        measurement after its batch, or the stage itself. No stage begins after that."""
        self._leaving = True  # and no more than that, since this may be a signal handler

    def carry(self, job: Job) -> bytes:
        model, plan = self._current(job)
        return pack(model, self._base(plan).dense.module)

    def take(self, job: Job, carried: bytes) -> None:
        self._compress(job)
        model, plan = self._current(job)
        self._model = unpack(self._base(plan), job.candidate, plan, model, carried)

    def _check_staying(self, *_: object) -> None:
        if self._leaving:
            raise Preempted("the worker was told to go")

    @contextmanager
    def _interruptible(self, model: nn.Module) -> Iterator[None]:
        """Let go between two batches of a model, if told to."""
        hook = model.register_forward_pre_hook(self._check_staying)
        try:
            yield
        finally:
            hook.remove()

    def _compress(self, job: Job) -> StageResult:
        self.forget()
        plan = plan_of(self.profile, job.candidate)
        if job.plan_hash and plan.hash != job.plan_hash:
            raise HpoError(
                f"this worker plans {plan.hash} where the coordinator planned {job.plan_hash}",
                "both must see the same model, calibration text and package version",
            )
        self._model, self._plan, self._job = self.compressed(job.candidate, plan), plan, job
        return StageResult(FIRST_STAGE, 0.0, following=self._after_compressing(job, plan))

    def _after_compressing(self, job: Job, plan: Plan) -> str:
        left = self._asked.following(job, FIRST_STAGE)
        if plan.is_dense or not left:
            return left
        if job.known:
            return "heal" if plan.heal else left
        return "screen"

    def compressed(self, candidate: Candidate, plan: Plan) -> nn.Module:
        """Return the compressed model of a candidate and its plan."""
        return compressed(self._base(plan), candidate, plan)

    def healing(self, candidate: Candidate, plan: Plan, model: nn.Module, parent_plan: str) -> Healing:
        """Return the healing of a trial; see `hpo.compress.applying.healing`.

        What comes of it is kept in the cache if other trials of the study may start from it, and a healing
        that an earlier trial did is not done again.
        """
        return healing(
            self._base(plan),
            candidate,
            plan,
            model,
            parent_plan=parent_plan,
            keep=self._may_be_parent,
            share=self._is_shared,
            keeper=self._keeper,
        )

    def healed(self, candidate: Candidate, plan: Plan, model: nn.Module, parent_plan: str = "") -> None:
        """Heal a compressed model in place as a trial was, if it was, without taking anything for granted.

        Starts from the healed factors of another plan, where one is named and they are in the cache. What
        comes of it is kept there too, if other trials of the study may start from it.
        """
        healed(self._base(plan), candidate, plan, model, parent_plan=parent_plan, keep=self._may_be_parent)

    def has_healed(self, plan: Plan, parent_plan: str) -> bool:
        """Whether the healed factors of `parent_plan` are at hand for `plan` to start from."""
        return has_healed(self._base(plan).store.key, parent_plan)

    @cached_property
    def _may_be_parent(self) -> bool:
        return "nearest" in values_of(self.study.space, "heal.start")

    @cached_property
    def _is_shared(self) -> bool:
        """Whether trials may differ in nothing but what comes after their healing."""
        return any(len(values_of(self.study.space, stage)) > 1 for stage in ("quantize", "cache"))

    def _current(self, job: Job) -> tuple[nn.Module, Plan]:
        if self._job != job or self._model is None or self._plan is None:
            raise HpoError(f"trial {job.number} is not on this worker", "begin with its first stage")
        return self._model, self._plan

    def _screen(self, job: Job) -> StageResult:
        model, plan = self._current(job)
        with rebuilding(model), self._interruptible(model):
            found = screen_kl(model, self._base(plan).dense.module, self.calibration)
        following = "heal" if plan.heal else self._asked.following(job, "screen")
        return StageResult("screen", 0.0, following=following, notes={SCREEN_KL: found})

    def _heal(self, job: Job) -> StageResult:
        model, plan = self._current(job)
        self._healing = self.healing(job.candidate, plan, model, job.parent_plan)
        return self._healed_on(job, "heal")

    def _heal_on(self, job: Job) -> StageResult:
        self._current(job)
        return self._healed_on(job, "heal_on")

    def _healed_on(self, job: Job, stage: str) -> StageResult:
        """Go on with the healing to its pause or its end."""
        if self._healing is None:
            raise HpoError(f"trial {job.number} has no healing to go on with", "begin with its first stage")
        try:
            checked = next(self._healing)
        except StopIteration as end:
            self._healing = None
            healed: Healed = end.value
            told = _unjudged(job, _told(healed, job.parent))
            following = self._asked.following(job, stage)
            return StageResult(stage, 0.0, following=following, notes=told, curve=healed.curve)
        seen: dict[str, Note] = {HEAL_NLL_SHORT: checked.loss} if math.isfinite(checked.loss) else {}
        notes = _unjudged(job, seen)
        return StageResult(stage, 0.0, following="heal_on", notes=notes, curve=checked.curve)

    def _measure(self, job: Job) -> StageResult:
        with self._interruptible(self._subject(job).model):
            found = self._probe(job, timed=False)
        return StageResult(
            "measure", 0.0, following=self._asked.following(job, "measure"), measurements=found
        )

    def _time(self, job: Job) -> StageResult:
        with QuietNode().measuring():
            found = self._probe(job, timed=True)
        return StageResult("time", 0.0, measurements=found)

    def _probe(self, job: Job, timed: bool) -> tuple[Measurement, ...]:
        subject = self._subject(job)
        found: list[Measurement] = []
        for name, metrics in self._asked.of(job, timed).items():
            self._check_staying()
            probe: Probe = registry.load("probe", name)()
            with rebuilding(subject.model) if probe.function_only else nullcontext():
                found += probe.measure(subject, metrics)
        device = fingerprint(self.device, self.study.run.threads)
        fresh = [m for m in found if m.metric not in job.known]  # some are measured together
        return tuple(m if m.source == "exact" else replace(m, device=device) for m in fresh)

    def _subject(self, job: Job) -> Subject:
        model, plan = self._current(job)
        return Subject(
            model=self.dense.module if plan.is_dense else model,
            dense=self.dense.module,
            cost=Cost(
                plan.parameters, plan.weight_bytes, plan.prefill_macs, kv_cache_bytes(plan, self.context)
            ),
            evaluation=self.evaluation,
            context=self.context,
            device=self.device,
            repeats=self.study.run.latency_repeats,
            allow_modelled=any(o.allow_modelled for o in self.study.objectives if o.metric == "energy"),
        )


def _told(healed: Healed, parent: int | None) -> dict[str, Note]:
    """Return what a trial tells of its healing."""
    notes: dict[str, Note] = {
        "heal_nll_before": healed.before,
        "heal_steps": float(healed.steps),
        "heal_kept": float(healed.kept_after),
    }
    if healed.warm and parent is not None:
        notes[PARENT] = float(parent)
    if healed.shared:
        notes["heal_shared_run"] = healed.shared
    if healed.after < float("inf"):
        notes[HEAL_NLL_AFTER] = healed.after
    return notes


def _unjudged(job: Job, notes: dict[str, Note]) -> dict[str, Note]:
    """Return the notes without those by which a trial may be given up, if it was completed before."""
    return {name: note for name, note in notes.items() if not (job.known and name in TIERS)}
