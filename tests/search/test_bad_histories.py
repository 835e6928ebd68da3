"""Histories and spaces that are no help to a sampler, for every sampler in the registry."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from hpo import registry
from hpo.search.generate import everything, sobol
from hpo.search.sampler import Sampler
from hpo.search.sobol import SobolSampler
from hpo.space import Candidate, Choice, Float, Int, SearchSpace, Value
from hpo.trial import Cause, Limit, Measurement, Objective, Trial, TrialState
from tests.search.problems import Toy, line, plain
from tests.search.test_sampler_contract import check, suited

SAMPLERS = registry.names("sampler")
LEARNING = [name for name in SAMPLERS if name not in ("sobol", "grid")]
"""Samplers that look at what trials found."""


@pytest.fixture(params=SAMPLERS)
def sampler(request: pytest.FixtureRequest) -> Sampler:
    made: Sampler = registry.load("sampler", request.param)(initial=4)
    return made


@pytest.fixture(params=LEARNING)
def learning(request: pytest.FixtureRequest) -> Sampler:
    made: Sampler = registry.load("sampler", request.param)(initial=8)
    return made


def forked(truth: Callable[[str, float], Mapping[str, float] | Cause], *objectives: Objective) -> Toy:
    """Return a toy with two branches, `left` and `right`, and a number below each; nothing is exact."""
    space = SearchSpace.of(
        [
            ("way", Choice(choices=("left", "right"))),
            ("way.a", Float(low=0.0, high=1.0, when={"way": ("left",)})),
            ("way.b", Float(low=0.0, high=1.0, when={"way": ("right",)})),
        ]
    )
    toy = plain(space, objectives, (), lambda _: {})
    return replace(toy, truth=lambda c: truth(way(c), float(c.values.get("way.a", c.values.get("way.b", 0)))))


def way(candidate: Candidate) -> str:
    return str(candidate.values["way"])


def share(candidates: Sequence[Candidate], branch: str) -> float:
    return sum(way(candidate) == branch for candidate in candidates) / len(candidates)


def started(toy: Toy, trials: int) -> list[Trial]:
    """Return trials spread over the space of a toy."""
    return [toy.trial(i, c) for i, c in enumerate(dict.fromkeys(sobol(toy.problem.space, trials, seed=3)))]


@pytest.mark.parametrize("state", list(TrialState))
def test_a_space_of_one_point_holds_no_more_whatever_became_of_it(
    sampler: Sampler, state: TrialState
) -> None:
    space = SearchSpace.of([("x", Float(low=0.5, high=0.5)), ("kind", Choice(choices=("only",)))])
    toy = plain(space, [Objective(metric="perplexity")], (), lambda _: {"perplexity": 1.0})
    asked = sampler.ask(toy.problem, [], 2, seed=0)
    assert asked == [Candidate.of({"x": 0.5, "kind": "only"})]
    cause = Cause.ERROR if state is TrialState.FAILED else None
    trial = replace(toy.trial(0, asked[0]), state=state, cause=cause)
    if state is not TrialState.COMPLETED:
        trial = replace(trial, measurements=())
    assert sampler.ask(toy.problem, [trial], 2, seed=0) == []


def test_exact_objectives_alone_are_searched_in_a_conditional_space(sampler: Sampler) -> None:
    space = SearchSpace.of(
        [("way", Choice(choices=("left", "right"))), ("way.n", Int(low=1, high=6, when={"way": ("right",)}))]
    )

    def truth(candidate: Candidate) -> dict[str, float]:
        n = float(candidate.values.get("way.n", 3))
        return {"weight_memory": n, "macs": 7 - n}

    exact = ("weight_memory", "macs")
    toy = plain(space, [Objective(metric=name) for name in exact], exact, truth)
    history = toy.search(sampler, 9, seed=0)
    assert {trial.candidate for trial in history} == set(everything(space))
    assert len(history) == 7


def test_a_branch_that_always_fails_is_left(learning: Sampler) -> None:
    """Sixteen trials, eight in either branch, of which those on the right all ran out of memory."""
    toy = forked(
        lambda way, x: {"perplexity": 1 + (x - 0.6) ** 2} if way == "left" else Cause.OUT_OF_MEMORY,
        Objective(metric="perplexity"),
    )
    assert share(next_of_many(toy, learning), "right") <= 1 / 3


def test_a_limit_that_one_branch_alone_can_keep_draws_the_search_there(learning: Sampler) -> None:
    """The left is better in all else, but its perplexity is 10 and more, and the limit is 6."""
    toy = forked(
        lambda way, x: {
            "perplexity": (10 if way == "left" else 4) + x,
            "prefill_latency": (1 if way == "left" else 3) - x,
        },
        Objective(metric="perplexity", limit=Limit(value=6.0)),
        Objective(metric="prefill_latency"),
    )
    assert share(next_of_many(toy, learning), "right") >= 2 / 3


def next_of_many(toy: Toy, sampler: Sampler) -> list[Candidate]:
    """Return what six seeds propose after sixteen quasi-random trials, evenly over the branches."""
    history = toy.search(SobolSampler(), 16, seed=0)
    assert share([trial.candidate for trial in history], "right") == 0.5
    return [candidate for seed in range(6) for candidate in sampler.ask(toy.problem, history, 1, seed)]


def test_an_exact_limit_that_one_branch_alone_can_keep_is_never_broken(sampler: Sampler) -> None:
    space = SearchSpace.of(
        [
            ("way", Choice(choices=("left", "right"))),
            ("way.n", Int(low=1, high=9, when={"way": ("left",)})),
            ("way.m", Int(low=1, high=9, when={"way": ("right",)})),
        ]
    )

    def truth(candidate: Candidate) -> dict[str, float]:
        small = float(candidate.values.get("way.m", 20.0))
        return {"perplexity": 10 - small, "weight_memory": small}

    limited = [Objective(metric="perplexity"), Objective(metric="weight_memory", limit=Limit(value=7))]
    toy = plain(space, limited, ("weight_memory",), truth)
    history = toy.search(sampler, 9, seed=0)
    assert sorted(int(trial.candidate.values["way.m"]) for trial in history) == [1, 2, 3, 4, 5, 6, 7]


def test_forty_parameters_are_no_obstacle(sampler: Sampler) -> None:
    space = SearchSpace.of((f"x{i}", Int(low=0, high=9)) for i in range(40))

    def truth(candidate: Candidate) -> dict[str, float]:
        total = sum(int(value) for value in candidate.values.values())
        return {"perplexity": 1.0 + total, "prefill_latency": 400.0 - total}

    toy = plain(space, [Objective(metric=m) for m in ("perplexity", "prefill_latency")], (), truth)
    history = started(toy, 16)
    check(toy, history, sampler.ask(toy.problem, history, 2, seed=0), 2)


def test_objectives_that_are_all_constant_leave_a_search(sampler: Sampler) -> None:
    metrics = ("perplexity", "prefill_latency")
    toy = suited(line(metrics, ()), sampler)
    toy = replace(toy, truth=lambda _: dict.fromkeys(metrics, 2.0))
    history = started(toy, 6)
    check(toy, history, sampler.ask(toy.problem, history, 2, seed=0), 2)


@pytest.mark.parametrize("known", [0, 3, 6])
def test_completed_trials_may_lack_an_objective(sampler: Sampler, known: int) -> None:
    toy = suited(line(("perplexity", "prefill_latency"), ()), sampler)
    history = [
        trial if i < known else replace(trial, measurements=trial.measurements[:1])
        for i, trial in enumerate(started(toy, 7))
    ]
    check(toy, history, sampler.ask(toy.problem, history, 2, seed=0), 2)


def test_one_plan_may_have_been_tried_twice(sampler: Sampler) -> None:
    """Once as it is, and once from elsewhere with another result."""
    toy = suited(line(("perplexity", "prefill_latency"), ()), sampler)
    once = started(toy, 6)
    twice = [replace(t, number=len(once) + i, measurements=worse(t)) for i, t in enumerate(once)]
    asked = sampler.ask(toy.problem, [*once, *twice], 2, seed=0)
    check(toy, once, asked, 2)


def worse(trial: Trial) -> tuple[Measurement, ...]:
    return tuple(replace(m, value=m.value + 0.01) for m in trial.measurements)


def test_trials_of_an_older_space_do_no_harm(sampler: Sampler) -> None:
    """Parameters that are gone, values out of range, a choice no longer there, a child without its parent."""
    toy = suited(forked(lambda way, x: {"perplexity": 1 + x}, Objective(metric="perplexity")), sampler)
    older: list[dict[str, Value]] = [
        {"way": "left", "way.a": 0.5, "gone": "yes"},
        {"way": "left", "way.a": 7.5},
        {"way": "middle"},
        {"way.b": 0.25},
        {"way": 3, "way.a": "much"},
        {"rank": 12},
    ]
    trials = [Trial(i, Candidate.of(values), "test", f"old{i}") for i, values in enumerate(older)]
    found = Measurement("perplexity", 0.5, "", "measured")  # type: ignore[arg-type]  # as read from JSON
    done = [replace(t.started("worker", 0.0), measurements=(found,)).completed(1.0) for t in trials]
    check(toy, done, sampler.ask(toy.problem, done, 5, seed=0), 5)
    mixed = [*done, *(replace(t, number=6 + i) for i, t in enumerate(started(toy, 6)))]
    check(toy, mixed, sampler.ask(toy.problem, mixed, 2, seed=0), 2)
