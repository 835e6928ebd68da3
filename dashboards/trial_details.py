"""What belongs to one trial and is read for one trial at a time: plan, healing and events."""

from collections.abc import Sequence
from dataclasses import dataclass

from dashboards.plan_bars import PlanBars, plan_bars
from hpo.healing_curve import HealingCurve
from hpo.problem import dense_trial
from hpo.store.store import Store
from hpo.store.values import Event
from hpo.study import Study
from hpo.trial import Trial


@dataclass(frozen=True)
class TrialDetails:
    """Everything of a trial that its study does not tell."""

    plan: PlanBars
    """Without bars where the trial has no plan."""
    curve: HealingCurve | None = None
    events: tuple[Event, ...] = ()


def read_plan(store: Store, study: Study, trials: Sequence[Trial], number: int) -> PlanBars:
    """Return the plan of a trial beside that of the dense model.

    Raises:
        NotFound: there is no such study or trial.
        StoreError: the store cannot be read.
    """
    dense = dense_trial(trials)
    base = () if dense is None else store.plan(study.name, dense.number)
    return plan_bars(store.plan(study.name, number), base, study.model.dtype)


def read_details(store: Store, study: Study, trials: Sequence[Trial], number: int) -> TrialDetails:
    """Return the details of a trial.

    Raises:
        NotFound: there is no such study or trial.
        StoreError: the store cannot be read.
    """
    return TrialDetails(
        read_plan(store, study, trials, number),
        store.healing_curve(study.name, number),
        store.trial_events(study.name, number),
    )
