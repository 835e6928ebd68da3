import math

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.search import problems
from benchmarks.search.classic import dtlz2, vehicle_safety, zdt1
from benchmarks.search.simulation import Answer, Simulation
from hpo.metric import Source
from hpo.pareto import Frame
from hpo.space import Candidate, Value
from hpo.trial import Cause, StageTime, TrialState
from tests.benchmarks_search.toys import conditional

Array = NDArray[np.float64]


def _thin(keep: float, even: bool = False, steps: int = 50) -> Candidate:
    values: dict[str, Value] = {
        "kind": "thin",
        "kind.keep": keep,
        "kind.even": even,
        "steps": steps,
        "only": "this",
    }
    return Candidate.of(values)


def test_a_candidate_becomes_a_completed_trial_with_what_it_brings_and_costs() -> None:
    trial = conditional().trial(7, _thin(0.52), "someone")
    assert (trial.number, trial.origin, trial.state) == (7, "someone", TrialState.COMPLETED)
    assert trial.plan_hash == "thin 0.5 False 50"
    assert trial.value("perplexity") == pytest.approx(30 - 10 - 1)
    assert trial.stages == (StageTime("compress", 2.0), StageTime("heal", 5.0))
    assert trial.seconds == trial.finished_at == 7.0
    assert trial.notes == {"steps": 50.0}


def test_what_the_plan_tells_is_exact_and_the_rest_is_measured() -> None:
    trial = conditional().trial(0, _thin(0.5), "someone")
    sources = {m.metric: (m.source, m.unit) for m in trial.measurements}
    assert sources == {"perplexity": (Source.MEASURED, "ppl"), "weight_memory": (Source.EXACT, "bytes")}


def test_a_candidate_that_breaks_becomes_a_failed_trial_that_cost_its_seconds() -> None:
    trial = conditional().trial(0, _thin(0.5, even=True, steps=100), "someone")
    assert (trial.state, trial.cause) == (TrialState.FAILED, Cause.NOT_A_NUMBER)
    assert trial.seconds == pytest.approx(12.0)
    assert trial.measurements == ()


def test_a_refused_candidate_becomes_a_failed_trial_that_cost_nothing() -> None:
    nothing = Candidate.of({"kind": "none", "steps": 0, "only": "this"})
    trial = conditional().refused(3, nothing, "someone")
    assert (trial.state, trial.cause, trial.plan_hash) == (TrialState.FAILED, Cause.UNSUPPORTED, "")
    assert (trial.message, trial.seconds) == ("nothing to do", 0.0)


def test_anchors_come_first_and_are_numbered() -> None:
    assert [(t.number, t.origin) for t in conditional().start()] == [(0, "anchor:dense"), (1, "anchor:thin")]


def test_hypervolumes_are_shares_of_the_best_and_a_failure_brings_nothing() -> None:
    # The box: perplexity to 30, memory to twice the dense model's 0.5. Dense has (20, 0.5): a share of
    # 1/3 x 1/2; the anchor (12, 0.9) adds what lies below 20: (20 - 12) / 30 x 0.1 / 1.
    simulation = conditional()
    broken = simulation.trial(2, _thin(0.5, even=True, steps=100), "someone")
    expected = np.array([1 / 6, 1 / 6 + 0.8 / 30, 1 / 6 + 0.8 / 30]) / 0.5
    assert simulation.hypervolumes([*simulation.start(), broken]) == pytest.approx(expected)


def test_a_simulation_whose_best_is_no_share_is_refused() -> None:
    simulation = conditional()
    with pytest.raises(ValueError, match="share of the box"):
        Simulation("x", simulation.problem, simulation.truth, (), best=1.2)


def test_an_anchor_that_does_not_say_so_is_refused() -> None:
    simulation = conditional()
    with pytest.raises(ValueError, match="must begin with 'anchor'"):
        Simulation("x", simulation.problem, simulation.truth, (("dense", Candidate()),), best=1.0)


def _share(front: Array, reference: float) -> float:
    width = front.shape[1]
    return Frame((0.0,) * width, (reference,) * width).hypervolume(front)


def test_best_of_dtlz2_is_that_of_a_dense_sample_of_the_sphere() -> None:
    # A coarse front dominates less than the true one; by counting, a random sample of the box.
    points = np.random.default_rng(0).uniform(0, 1.1, (400_000, 4))
    counted = float((np.linalg.norm(points, axis=1) >= 1).mean())
    assert dtlz2().best == pytest.approx(counted, abs=4 * math.sqrt(0.25 / len(points)))
    sphere = np.abs(np.random.default_rng(0).normal(size=(3_000, 4)))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    assert dtlz2().best - 0.07 < _share(sphere, 1.1) < dtlz2().best


@pytest.mark.parametrize("reference", [1.0, 11.0])
def test_best_of_zdt1_is_that_of_a_dense_sample_of_its_front(reference: float) -> None:
    first = np.linspace(0, 1, 20_001)
    front = np.stack([first, 1 - np.sqrt(first)], axis=1)
    assert zdt1(reference=reference).best == pytest.approx(_share(front, reference), abs=2e-4)


def test_points_of_the_front_of_dtlz2_lie_on_the_sphere_and_others_beyond_it() -> None:
    simulation = dtlz2()
    on, off = (Candidate.of({f"x{i}": 0.3 if i < 3 else rest for i in range(6)}) for rest in (0.5, 1.0))
    losses = simulation.problem.losses([simulation.trial(0, c, "x") for c in (on, off)])
    assert np.linalg.norm(losses, axis=1) == pytest.approx([1.0, 1.75])


def test_zdt1_is_what_its_formula_says() -> None:
    # g = 1 + 9 x 1/7 at one of seven further inputs set: f2 = g - sqrt(x g).
    values = {f"x{i}": 0.0 for i in range(8)} | {"x0": 0.25, "x3": 1.0}
    trial = zdt1().trial(0, Candidate.of(values), "x")
    g = 1 + 9 / 7
    assert trial.value("perplexity") == 0.25
    assert trial.value("prefill_latency") == pytest.approx(g - math.sqrt(0.25 * g))


def test_vehicle_safety_has_the_signs_and_the_reference_of_botorch() -> None:
    # The published formula of the mass at the lightest car: 1640.2823 + 2.3573285 + 2.3220035 + ...
    simulation = vehicle_safety()
    trial = simulation.trial(0, Candidate.of({f"x{i}": 1.0 for i in range(5)}), "x")
    mass = 1640.2823 + 2.3573285 + 2.3220035 + 4.5688768 + 7.7213633 + 4.4559504
    assert trial.value("perplexity") == pytest.approx(mass)
    limits = [o.limit.value for o in simulation.problem.objectives if o.limit]
    assert limits == pytest.approx([1864.72022, 11.81993945, 0.2903999384])


@pytest.mark.parametrize("name", ["vehicle_safety", "car_side_impact"])
def test_a_random_sample_comes_near_the_published_hypervolume_without_passing_it(name: str) -> None:
    simulation = problems.load(name)
    rng = np.random.default_rng(0)
    space = simulation.problem.space
    found = [simulation.trial(i, space.from_unit(rng.random(len(space)).tolist()), "x") for i in range(400)]
    assert 0.6 < simulation.hypervolumes(found)[-1] < 1.0


@pytest.mark.parametrize("name", problems.PROBLEMS)
def test_every_problem_is_there_under_its_name(name: str) -> None:
    assert problems.load(name).name == name


def test_an_answer_without_notes_has_none() -> None:
    assert Answer(Cause.ERROR, ()).notes == {}
