"""Ax (Olson et al. 2025): its own choice of BoTorch models and acquisition for the experiment at hand."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from ax.api.client import Client
from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig
from ax.utils.common.logger import set_ax_logger_levels

from benchmarks.search.peers import places
from hpo.problem import Problem
from hpo.search.history import blames_candidate
from hpo.space import Candidate, Choice, Float, Int, SearchSpace, Value
from hpo.trial import Trial, TrialState

Config: TypeAlias = RangeParameterConfig | ChoiceParameterConfig
ROOT = "root"
"""A parameter of one value that everything hangs on: a hierarchical space of Ax is a tree."""


class AxClient:
    """With the generation strategy that Ax picks by default.

    Where every condition is on one value of one parent, the space is hierarchical as Ax understands it,
    a tree; otherwise it is flat and inactive values are dropped. Choices and steps are known by their place.
    Limits are outcome constraints; one relative to the dense model counts from its anchor on, since an
    experiment is configured once, when the anchors are known. A failure is a failed trial. An anchor
    from outside the space cannot be told.
    """

    def __init__(self, problem: Problem, seed: int, initial: int) -> None:
        self._problem = problem
        self._seed = seed
        self._initial = initial
        self._anchors: list[Trial] = []
        self._client: Client | None = None
        self._asked: int | None = None

    def tell(self, trial: Trial) -> None:
        if self._client is None:
            self._anchors.append(trial)
        elif self._asked is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._finish(self._client, self._asked, trial)

    def ask(self) -> Candidate:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's, GPyTorch's and Ax's own making
            if self._client is None:
                self._client = self._experiment()
            ((self._asked, values),) = self._client.get_next_trials(max_trials=1).items()
        return places.candidate(self._problem.space, values)

    def _experiment(self) -> Client:
        set_ax_logger_levels(logging.ERROR)
        client = Client(random_seed=self._seed)
        client.configure_experiment(parameters=_parameters(self._problem.space), name="search")
        bounds = self._problem.bounds(self._anchors)
        objectives = self._problem.objectives
        client.configure_optimization(
            objective=", ".join(f"-{objective.metric}" for objective in objectives),
            outcome_constraints=[
                f"{objective.metric} <= {bound:.12g}"
                for objective, bound in zip(objectives, bounds, strict=True)
                if bound < float("inf")
            ],
        )
        client.configure_generation_strategy(
            initialization_budget=self._initial,
            initialization_random_seed=self._seed,
            use_existing_trials_for_initialization=False,
        )
        for anchor in self._anchors:
            if self._problem.space.contains(anchor.candidate):
                index = client.attach_trial(self._told_as(anchor.candidate))
                self._finish(client, index, anchor)
        return client

    def _told_as(self, candidate: Candidate) -> dict[str, Value]:
        """Return an arm of the experiment: with the root of a tree, or with inactive values in the middle."""
        space = self._problem.space
        known = places.places(space, candidate)
        if _is_tree(space):
            return {ROOT: 0, **known}
        middle = {n: places.place(p, p.from_unit(0.5)) for n, p in space.parameters.items()}
        return {**middle, **known}

    def _finish(self, client: Client, index: int, trial: Trial) -> None:
        if trial.state is TrialState.COMPLETED:
            losses = self._problem.losses([trial])[0].tolist()
            names = [objective.metric for objective in self._problem.objectives]
            client.complete_trial(index, dict(zip(names, losses, strict=True)))
        elif blames_candidate(trial):
            client.mark_trial_failed(index)
        else:
            client.mark_trial_abandoned(index)


def _is_tree(space: SearchSpace) -> bool:
    """Whether there are conditions, each on one value of one parent, and that known by place."""
    conditions = [list(p.when.items()) for p in space.parameters.values() if p.when]
    if not all(len(when) == 1 for when in conditions):
        return False
    parents = [(space.parameters[parent], values) for ((parent, values),) in conditions]
    return bool(parents) and all(places.by_place(p) and len(values) == 1 for p, values in parents)


def _parameters(space: SearchSpace) -> Sequence[Config]:
    """Return the parameters of an experiment, under a root where they are a tree."""
    if not _is_tree(space):
        return [_config(name, p, None) for name, p in space.parameters.items()]
    free = [name for name, p in space.parameters.items() if not p.when]
    root = ChoiceParameterConfig(
        name=ROOT, values=[0], parameter_type="int", is_ordered=True, dependent_parameters={0: free}
    )
    return [root, *(_config(name, p, _children(space, name)) for name, p in space.parameters.items())]


def _children(space: SearchSpace, parent: str) -> Mapping[Value, Sequence[str]] | None:
    """Return the parameters that each value of a parent, by its place, switches on."""
    found: dict[Value, list[str]] = {}
    for name, parameter in space.parameters.items():
        for value in parameter.when.get(parent, ()):
            found.setdefault(places.place(space.parameters[parent], value), []).append(name)
    return found or None


def _config(
    name: str, parameter: Float | Int | Choice, children: Mapping[Value, Sequence[str]] | None
) -> Config:
    count = parameter.count or 1
    if isinstance(parameter, Choice) or parameter.count == 1 or children:
        return ChoiceParameterConfig(
            name=name,
            values=list(range(count)),
            parameter_type="int",
            is_ordered=not isinstance(parameter, Choice) or count <= 2,
            dependent_parameters=children,
        )
    if places.by_place(parameter):
        return RangeParameterConfig(name=name, bounds=(0, count - 1), parameter_type="int")
    return RangeParameterConfig(
        name=name,
        bounds=(parameter.low, parameter.high),
        parameter_type="float" if isinstance(parameter, Float) else "int",
        scaling="log" if parameter.log else "linear",
    )
