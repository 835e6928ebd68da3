"""Make the model of a trial again. Weights are not kept per trial; the recipe and the cache are.

The same plan, calibration text and package give the same factors (they are cached) and the same healing
(its seed follows from the plan), up to the last bits, which depend on where in memory a matrix lies.
Whether they did is checked: the new model must predict the evaluation text as well as the trial's did.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpo.compress.plan import Plan
from hpo.compress.planner import plan_of
from hpo.errors import HpoError
from hpo.measure.quality import mean_nll
from hpo.models.dense import DenseModel
from hpo.models.text import Corpus
from hpo.run.lineage import PARENT
from hpo.run.workbench import Workbench
from hpo.store.values import StudyRecord
from hpo.study import Study
from hpo.trial import Trial

EXPECTED = 1e-3
"""Relative difference of nll beyond which a rebuilt model is said to differ from the trial's."""
REFUSED = 1e-2
"""Relative difference of nll beyond which it is another model, and refused."""


@dataclass(frozen=True)
class Rebuilt:
    """The model of a trial, made again and found to be as good as the trial's."""

    study: Study
    trial: Trial
    plan: Plan
    model: Any
    """A causal LM of transformers in eval mode on `device`, factored layers in place."""
    dense: DenseModel
    calibration_digest: str
    evaluation: Corpus
    device: str
    """As torch names it."""
    nll: float
    """Nats per token of the evaluation text, measured now."""
    stored_nll: float
    """The trial's."""

    @property
    def difference(self) -> float:
        """Relative difference of nll, now against the trial's; 0 when they are equal to the bit."""
        return (self.nll - self.stored_nll) / abs(self.stored_nll)

    @property
    def is_same(self) -> bool:
        """Whether the difference is within what another machine's arithmetic explains."""
        return abs(self.difference) <= EXPECTED


def rebuild(record: StudyRecord, trial: Trial, parents: Mapping[int, Trial] | None = None) -> Rebuilt:
    """Make the model of a completed trial again, on the study's device, and compare its nll.

    `parents` holds, by number, the trials whose healed factors it started from, and theirs in turn.

    Raises:
        HpoError: the model, the calibration text or the package is not what the trial was made with,
            or the new model's nll is more than 1 % off.
    """
    study = record.study
    bench = Workbench(study.to_mapping())
    _check_profile(record, bench)
    plan = plan_of(bench.profile, trial.candidate)
    if plan.hash != trial.plan_hash:
        raise HpoError(
            f"trial {trial.number} of {study.name!r} has the plan {trial.plan_hash}, but its candidate gives "
            f"{plan.hash} here",
            _changed(record),
        )
    model = _made(bench, trial, plan, parents or {})
    rebuilt = Rebuilt(
        study=study,
        trial=trial,
        plan=plan,
        model=model,
        dense=bench.dense,
        calibration_digest=bench.calibration.digest,
        evaluation=bench.evaluation,
        device=bench.device,
        nll=mean_nll(model, bench.evaluation),
        stored_nll=_stored_nll(study, trial),
    )
    _check_nll(rebuilt, record)
    return rebuilt


def _made(bench: Workbench, trial: Trial, plan: Plan, parents: Mapping[int, Trial]) -> Any:
    """Compress and heal as the trial was; what its healing started from is made first, if it is gone."""
    number = trial.notes.get(PARENT)
    parent_plan = ""
    if isinstance(number, float):
        parent = _parent(trial, int(number), parents)
        parent_plan = parent.plan_hash
        if not bench.has_healed(plan, parent_plan):
            _made(bench, parent, plan_of(bench.profile, parent.candidate), parents)
    model = bench.compressed(trial.candidate, plan)
    bench.healed(trial.candidate, plan, model, parent_plan)
    return model


def _parent(trial: Trial, number: int, parents: Mapping[int, Trial]) -> Trial:
    if number not in parents:
        raise HpoError(
            f"trial {trial.number} started from the factors of trial {number}, which is not at hand",
            "export it from the store that holds both",
        )
    return parents[number]


def _check_profile(record: StudyRecord, bench: Workbench) -> None:
    """Refuse another model or calibration text, which the plan's hash alone may not show."""
    before, now = record.environment.get("profile", ""), bench.profile.key
    if before and before != now:
        raise HpoError(
            f"the model or its calibration text is not the one that study {record.study.name!r} was "
            f"launched with: profile {before}, now {now}",
            _changed(record),
        )


def _changed(record: StudyRecord) -> str:
    """Return a hint for a model that is not the trial's: what it may be, and what the study ran with."""
    then = ", ".join(
        f"{name} {record.environment[name]}"
        for name in ("compression-hpo", "torch", "python", "device")
        if name in record.environment
    )
    return (
        "the model, its revision, a text, a version or the device has changed since"
        + (f" (the study ran with {then})" if then else "")
        + "; export where it ran, or launch the study again"
    )


def _stored_nll(study: Study, trial: Trial) -> float:
    stored = trial.value("nll")
    if stored is None:
        raise HpoError(
            f"trial {trial.number} of {study.name!r} has no nll to compare the rebuilt model with",
            "export a trial that was measured on a model",
        )
    return stored


def _check_nll(rebuilt: Rebuilt, record: StudyRecord) -> None:
    if not abs(rebuilt.difference) <= REFUSED:
        raise HpoError(
            f"rebuilt, trial {rebuilt.trial.number} of {rebuilt.study.name!r} has nll {rebuilt.nll:.6g} "
            f"on the evaluation text, where {rebuilt.stored_nll:.6g} was measured: "
            f"{100 * rebuilt.difference:+.2f} %",
            _changed(record),
        )
