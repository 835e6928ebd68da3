"""What `hpo.search.sampler` promises, for every sampler in the registry."""

import json
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hpo import registry
from hpo.search.generate import sobol
from hpo.search.grid import GridSampler
from hpo.search.sampler import Sampler
from hpo.space import Candidate, Choice, Int, SearchSpace, Value
from hpo.trial import Cause, Limit, Objective, Trial, TrialState
from tests.search.problems import Toy, compression, counted, dtlz2, grid, line, plain

TOYS = {"dtlz2": dtlz2(), "compression": compression()}
DRAWING = [name for name in registry.names("sampler") if name != "grid"]
"""Samplers that a seed leads elsewhere; the grid has one order."""


@pytest.fixture(params=registry.names("sampler"))
def sampler(request: pytest.FixtureRequest) -> Sampler:
    made: Sampler = registry.load("sampler", request.param)(initial=4)
    return made


def suited(toy: Toy, sampler: Sampler) -> Toy:
    """Return a toy that a sampler takes: the grid takes none with ranges."""
    return counted(toy) if isinstance(sampler, GridSampler) else toy


@pytest.fixture(params=TOYS)
def toy(request: pytest.FixtureRequest, sampler: Sampler) -> Toy:
    return suited(TOYS[request.param], sampler)


def midway(toy: Toy) -> list[Trial]:
    """Return a history with everything in it: anchors, pending, failed and stopped trials."""
    history = toy.start()
    for candidate in sobol(toy.problem.space, 16, seed=9):
        plan = toy.problem.preview([candidate]).plans[0]
        if plan and plan not in {trial.plan_hash for trial in history}:
            history.append(toy.trial(len(history), candidate))
    history[-1] = replace(history[-1], state=TrialState.STOPPED, measurements=history[-1].measurements[:1])
    history[-2] = replace(history[-2], state=TrialState.RUNNING, measurements=(), finished_at=None)
    history[-3] = replace(history[-3], state=TrialState.WAITING, measurements=(), finished_at=None)
    for row, cause in ((-4, Cause.OUT_OF_MEMORY), (-5, Cause.LOST_WORKER)):
        history[row] = replace(history[row], state=TrialState.FAILED, cause=cause, measurements=())
    return history


def check(toy: Toy, history: Sequence[Trial], asked: Sequence[Candidate], count: int) -> None:
    preview = toy.problem.preview(asked)
    metrics = [objective.metric for objective in toy.problem.objectives]
    bounds = toy.problem.bounds(history)[[metrics.index(name) for name in toy.problem.exact]]
    assert len(asked) == count
    assert all(toy.problem.space.contains(candidate) for candidate in asked)
    assert all(preview.plans), "a refused candidate was proposed"
    assert len({*preview.plans, *(trial.plan_hash for trial in history)}) == count + len(history)
    assert (preview.exact <= bounds).all(), "an exact limit is broken"


@pytest.mark.parametrize("count", [1, 3])
def test_a_new_study_gets_new_allowed_candidates(sampler: Sampler, toy: Toy, count: int) -> None:
    check(toy, [], sampler.ask(toy.problem, [], count, seed=0), count)
    history = toy.start()
    check(toy, history, sampler.ask(toy.problem, history, count, seed=0), count)


@pytest.mark.parametrize("count", [1, 3])
def test_a_study_under_way_gets_new_allowed_candidates(sampler: Sampler, toy: Toy, count: int) -> None:
    history = midway(toy)
    check(toy, history, sampler.ask(toy.problem, history, count, seed=0), count)


def test_more_are_asked_for_than_the_start_holds(sampler: Sampler, toy: Toy) -> None:
    history = [t for t in midway(toy) if t.state is not TrialState.STOPPED][: len(toy.anchors) + 2]
    check(toy, history, sampler.ask(toy.problem, history, 5, seed=0), 5)


def test_the_same_question_has_the_same_answer_after_a_restart(sampler: Sampler, toy: Toy) -> None:
    history = midway(toy)
    restored = [Trial.from_mapping(trial.to_mapping()) for trial in history]
    first = sampler.ask(toy.problem, history, 2, seed=5)
    fresh = type(sampler)(initial=4).ask(toy.problem, restored, 2, seed=5)  # type: ignore[call-arg]  # not in the protocol
    assert first == fresh


RESUMED = """
import json, sys
from hpo import registry
from hpo.trial import Trial
from tests.search.test_sampler_contract import TOYS, suited

asked = {}
for toy, histories in json.load(sys.stdin).items():
    for name, history in histories.items():
        sampler = registry.load("sampler", name)(initial=4)
        trials = [Trial.from_mapping(trial) for trial in history]
        found = sampler.ask(suited(TOYS[toy], sampler).problem, trials, 2, 5)
        asked.setdefault(toy, {})[name] = [dict(candidate.values) for candidate in found]
print(json.dumps(asked))
"""
"""Asks every sampler about the histories that it reads, as a study does that was killed and goes on."""

Answers = Mapping[str, Mapping[str, list[Mapping[str, Value]]]]


@pytest.fixture(scope="module")
def resumed() -> Answers:
    """Return what another process proposes, by toy and sampler."""
    histories = {
        toy: {
            name: [t.to_mapping() for t in midway(suited(TOYS[toy], registry.load("sampler", name)()))]
            for name in registry.names("sampler")
        }
        for toy in TOYS
    }
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RESUMED],
        input=json.dumps(histories),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    answers: Answers = json.loads(found.stdout)
    return answers


@pytest.mark.parametrize("name", registry.names("sampler"))
@pytest.mark.parametrize("where", TOYS)
def test_a_killed_and_resumed_study_goes_on_as_if_never_stopped(
    name: str, where: str, resumed: Answers
) -> None:
    made: Sampler = registry.load("sampler", name)(initial=4)
    toy = suited(TOYS[where], made)
    asked = made.ask(toy.problem, midway(toy), 2, seed=5)
    assert len(asked) == 2
    assert [dict(candidate.values) for candidate in asked] == resumed[where][name]


@pytest.mark.parametrize("name", DRAWING)
def test_another_seed_leads_elsewhere(name: str) -> None:
    made: Sampler = registry.load("sampler", name)(initial=4)
    for toy in TOYS.values():
        history = midway(toy)
        first, second = (made.ask(toy.problem, history, 2, seed) for seed in (5, 6))
        assert first != second


def test_any_seed_will_do(sampler: Sampler) -> None:
    toy = suited(TOYS["dtlz2"], sampler)
    history = midway(toy)
    check(toy, history, sampler.ask(toy.problem, history, 1, seed=10**30), 1)


def test_asking_leaves_no_trace(sampler: Sampler) -> None:
    toy, threads = suited(TOYS["compression"], sampler), torch.get_num_threads()
    history = midway(toy)
    before = list(history)
    state = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]  # legacy form
    sampler.ask(toy.problem, history, 1, seed=0)
    assert state == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]  # as above
    assert torch.get_num_threads() == threads
    assert history == before


def test_a_space_is_searched_to_its_end_and_no_further(sampler: Sampler) -> None:
    toy = grid()
    history: list[Trial] = []
    for left in (9, 5, 1, 0):
        asked = sampler.ask(toy.problem, history, 4, seed=1)
        check(toy, history, asked, min(left, 4))
        history += [toy.trial(len(history) + i, candidate) for i, candidate in enumerate(asked)]
    assert len(history) == 9


def test_a_space_of_one_point_holds_one_candidate(sampler: Sampler) -> None:
    space = SearchSpace.of([("only", Choice(choices=("one",)))])
    toy = plain(space, [Objective(metric="perplexity")], (), lambda _: {"perplexity": 1.0})
    asked = sampler.ask(toy.problem, [], 3, seed=0)
    check(toy, [], asked, 1)
    assert sampler.ask(toy.problem, [toy.trial(0, asked[0])], 3, seed=0) == []


def test_objectives_that_never_vary_do_not_stop_the_search(sampler: Sampler) -> None:
    toy = grid(constant=True)
    history = toy.search(sampler, 8, seed=0)
    assert len({trial.plan_hash for trial in history}) == 8


def test_a_history_of_failures_does_not_stop_the_search(sampler: Sampler, toy: Toy) -> None:
    failed = {"state": TrialState.FAILED, "cause": Cause.NOT_A_NUMBER, "measurements": ()}
    history = [replace(t, **failed) for t in midway(toy)]  # type: ignore[arg-type]  # of mixed types
    check(toy, history, sampler.ask(toy.problem, history, 2, seed=0), 2)


def test_a_space_where_everything_failed_is_searched_to_its_end(sampler: Sampler) -> None:
    toy = line_of_three()
    history: list[Trial] = []
    for left in (3, 1, 0):
        asked = sampler.ask(toy.problem, history, 2, seed=0)
        check(toy, history, asked, min(left, 2))
        for candidate in asked:
            trial = toy.trial(len(history), candidate, state=TrialState.RUNNING)
            history.append(trial.failed(Cause.TIMED_OUT, "", 1.0))


def line_of_three() -> Toy:
    """Return a space of three candidates with exact objectives alone."""
    space = SearchSpace.of([("x", Int(low=1, high=3))])
    objectives = [Objective(metric=name, limit=Limit(value=9)) for name in ("weight_memory", "macs")]

    def truth(candidate: Candidate) -> dict[str, float]:
        x = float(candidate.values["x"])
        return {"weight_memory": x, "macs": 4 - x}

    return plain(space, objectives, ("weight_memory", "macs"), truth)


@pytest.mark.parametrize("exact", [("weight_memory", "macs"), ("weight_memory",), ()])
def test_any_share_of_the_objectives_may_be_exact(sampler: Sampler, exact: tuple[str, ...]) -> None:
    toy = suited(line(("weight_memory", "macs"), exact), sampler)
    history = toy.search(sampler, 7, seed=0)
    assert len({trial.plan_hash for trial in history}) == 7


@pytest.mark.parametrize("objectives", [1, 7])
def test_one_objective_or_many_may_be_searched(sampler: Sampler, objectives: int) -> None:
    metrics = ("perplexity", "nll", "weight_memory", "macs", "energy", "peak_memory", "kl_to_dense")
    toy = suited(line(metrics[:objectives], ()), sampler)
    history = toy.search(sampler, 7, seed=0)
    assert len({trial.plan_hash for trial in history}) == 7


@pytest.mark.parametrize("name", registry.names("sampler"))
def test_a_sampler_is_made_without_arguments_and_says_what_it_is(name: str) -> None:
    made = registry.load("sampler", name)()
    assert made.summary
    assert "\n" not in made.summary
    assert len(made.summary) <= 92, "too long for a line of `hpo list samplers`"


def test_listing_samplers_loads_no_heavy_package() -> None:
    code = (
        "import sys; from hpo import registry; "
        "[registry.load('sampler', name)().summary for name in registry.names('sampler')]; "
        "print([heavy for heavy in ('torch', 'botorch', 'optuna') if heavy in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
