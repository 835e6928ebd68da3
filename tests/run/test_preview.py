import numpy as np
import pytest

from hpo.compress.bases import PLAIN
from hpo.compress.mpo_basis import MpoBasis
from hpo.compress.profile import ModelProfile
from hpo.compress.profiling import build_profile
from hpo.errors import InvalidStudy
from hpo.problem import Problem
from hpo.run.anchors import UNIFORM_SVD, anchors, opening
from hpo.run.launch import check_energy
from hpo.run.preview import check_reachable, pool, problem_of
from hpo.space import Candidate, Value
from hpo.study import Study
from tests.compress import small

SPACE = {
    "factorise": {"type": "choice", "choices": ["svd", "mpo"]},
    "factorise.keep_ratio": {"type": "float", "low": 0.2, "high": 0.9, "when": {"factorise": "svd"}},
    "factorise.bond_dimension": {"type": "int", "low": 1, "high": 6, "when": {"factorise": "mpo"}},
    "heal": {"type": "choice", "choices": ["none", "fine_tune"]},
    "heal.steps": {"type": "int", "low": 0, "high": 20, "step": 10, "when": {"heal": "fine_tune"}},
}


def study(*objectives: object, space: object = SPACE) -> Study:
    return Study.from_mapping(
        {
            "version": 1,
            "name": "t",
            "model": "reference",
            "objectives": list(objectives),
            "space": space,
            "budget": {"trials": 5},
        }
    )


@pytest.fixture(scope="module")
def profile() -> ModelProfile:
    return build_profile(small.dense_model(), small.corpus(), small.CONTEXT, [PLAIN, MpoBasis(2)])


def problem(profile: ModelProfile, *objectives: object, counter: str = "") -> Problem:
    return problem_of(study(*objectives), profile, counter)


def test_exact_objectives_are_those_a_plan_decides(profile: ModelProfile) -> None:
    energy = {"metric": "energy", "allow_modelled": True}
    metrics = ["perplexity", "weight_memory", "prefill_latency", "macs", "parameters"]
    assert problem(profile, *metrics, energy).exact == ("weight_memory", "macs", "parameters", "energy")
    assert problem(profile, *metrics, energy, counter="rapl").exact == ("weight_memory", "macs", "parameters")


def test_a_preview_of_the_dense_model_is_what_the_model_holds(profile: ModelProfile) -> None:
    seen = problem(profile, "weight_memory", "macs").preview([Candidate()])
    model = small.dense_model().module
    assert seen.exact[0, 0] == sum(p.numel() * p.element_size() for p in model.parameters())
    assert seen.plans == ("dense",)


def test_candidates_that_amount_to_the_same_share_a_plan(profile: ModelProfile) -> None:
    a = Candidate.of({"factorise": "svd", "factorise.keep_ratio": 0.5, "heal": "none"})
    b = Candidate.of(
        {"factorise": "svd", "factorise.keep_ratio": 0.5000001, "heal": "fine_tune", "heal.steps": 0}
    )
    plans = problem(profile, "weight_memory").preview([a, b]).plans
    assert plans[0] == plans[1]


def test_a_candidate_that_cannot_be_planned_is_refused_with_its_reason(profile: ModelProfile) -> None:
    seen = problem(profile, "weight_memory").preview([Candidate.of({"factorise": "svd"}), UNIFORM_SVD])
    assert seen.plans[0] == ""
    assert "keep_ratio" in seen.refusals[0]
    assert np.isnan(seen.exact[0]).all()
    assert seen.refusals[1] == ""


def test_moves_of_a_candidate_cost_what_it_costs(profile: ModelProfile) -> None:
    asked = problem(profile, "weight_memory", "macs")
    assert asked.moves is not None
    moved = asked.moves(UNIFORM_SVD, 5, 0)
    assert len(moved) == 5
    seen = asked.preview([UNIFORM_SVD, *moved])
    assert len(set(seen.plans)) == 6
    assert (seen.exact[1:] <= 1.005 * seen.exact[0]).all()
    assert not any(asked.space.contains(candidate) for candidate in moved)
    assert asked.moves(Candidate(), 5, 0) == []


def test_the_pool_covers_every_branch(profile: ModelProfile) -> None:
    candidates, preview = pool(problem(profile, "weight_memory"), 200)
    assert {c.values["factorise"] for c in candidates} == {"svd", "mpo"}
    assert {c.values["heal"] for c in candidates} == {"none", "fine_tune"}
    assert len(preview.plans) == len(candidates) > 60


def test_anchors_are_dense_few_bits_uniform_smallest_and_largest(profile: ModelProfile) -> None:
    of = problem(profile, "perplexity", "weight_memory")
    found = anchors(of)
    assert [origin for origin, _ in found] == [
        "anchor:dense",
        "anchor:int8",
        "anchor:int4",
        "anchor:svd",
        "anchor:smallest",
        "anchor:largest",
    ]
    sizes = of.preview([candidate for _, candidate in found]).exact[:, 0]
    dense, int8, int4, svd, smallest, largest = sizes
    assert smallest == of.preview(pool(of)[0]).exact[:, 0].min()
    assert smallest < svd < largest < dense
    assert int4 < int8 < dense
    assert len(list(opening(of, [], []))) == 6


@pytest.mark.parametrize("limit", [{"ratio_to_dense": 0.01}, {"value": 10.0}], ids=["relative", "absolute"])
def test_a_limit_no_candidate_can_meet_is_found_before_any_trial(
    profile: ModelProfile, limit: dict[str, float]
) -> None:
    asked = study("perplexity", {"metric": "weight_memory", "limit": limit})
    with pytest.raises(InvalidStudy, match=r"no candidate keeps weight_memory within .* bytes") as caught:
        check_reachable(asked, profile, problem_of(asked, profile, ""))
    assert caught.value.where == ("objectives", 1, "limit")


def test_a_limit_that_can_be_met_passes(profile: ModelProfile) -> None:
    asked = study("perplexity", {"metric": "weight_memory", "limit": {"ratio_to_dense": 0.9}})
    check_reachable(asked, profile, problem_of(asked, profile, ""))


def test_a_space_that_cannot_be_planned_at_all_is_refused(profile: ModelProfile) -> None:
    asked = study("perplexity", space={"factorise": "svd"})
    with pytest.raises(InvalidStudy, match="no candidate of the space can be planned"):
        check_reachable(asked, profile, problem_of(asked, profile, ""))


def test_energy_without_counter_or_permission_is_refused() -> None:
    with pytest.raises(InvalidStudy, match="energy cannot be measured here") as caught:
        check_energy(study("perplexity", "energy"), "")
    assert "allow_modelled" in caught.value.hint
    check_energy(study("perplexity", "energy"), "nvml")
    check_energy(study("perplexity", {"metric": "energy", "allow_modelled": True}), "")


@pytest.mark.parametrize(
    ("budget", "spends"),
    [
        ({"trials": 5}, "trials"),
        ({"hours": 1.0}, "seconds"),
        ({"trials": 5, "hours": 1.0}, "seconds"),
        ({"gpu_hours": 1.0}, "seconds"),
        ({"trials": 5, "joules": 1.0}, "seconds"),
    ],
)
def test_a_budget_of_time_or_energy_is_spent_in_seconds(
    profile: ModelProfile, budget: dict[str, float], spends: str
) -> None:
    limited = Study.from_mapping({**study("perplexity").to_mapping(), "budget": budget})
    assert problem_of(limited, profile, "").spends == spends


def test_a_preview_guesses_by_damage_and_names_the_healing_that_is_shared(profile: ModelProfile) -> None:
    values: dict[str, Value] = {"factorise": "svd", "heal": "fine_tune", "heal.steps": 10}
    small_one, large = (Candidate.of({**values, "factorise.keep_ratio": keep}) for keep in (0.3, 0.8))
    rounded = Candidate.of({**dict(large.items), "quantize": "rtn", "quantize.group_size": 8})
    seen = problem(profile, "perplexity", "weight_memory").preview([Candidate(), large, small_one, rounded])
    assert seen.guesses is not None
    guesses = seen.guesses[:, 0].tolist()
    assert guesses[0] == 0.0
    assert guesses[0] < guesses[1] < guesses[2]
    assert guesses[1] < guesses[3]  # rounding adds to the damage
    assert seen.shared == ("", seen.plans[1], seen.plans[2], seen.plans[1])
