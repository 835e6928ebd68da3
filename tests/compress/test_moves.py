"""Moves from layer to layer: what they touch, and that they cost no more."""

from typing import Any

import pytest

from hpo.compress.moves import moves, unshifted
from hpo.compress.plan import Plan
from hpo.compress.planner import plan_of
from hpo.compress.profile import ModelProfile
from hpo.compress.shift import parsed
from hpo.compress.sparse_plan import Sparse
from hpo.space import Candidate
from tests.compress.test_shift import two_layers

SVD = Candidate.of({"factorise": "svd", "factorise.keep_ratio": 0.5})
RTN = Candidate.of({"quantize": "rtn", "quantize.bits": 4, "quantize.group_size": 16})


def shift_of(candidate: Candidate, stage: str = "factorise") -> tuple[int, ...]:
    return parsed(str(candidate.values.get(f"{stage}.shift", "")))


def sizes(plan: Plan) -> list[int]:
    """Return bytes of each layer; of one that is held whole with zeros in it, the bytes of the others."""
    bits, found = plan.architecture.weight_bits, []
    for layer in plan.layers:
        held = layer.costs.resident * bits // 8 + layer.costs.packed_bytes
        if isinstance(layer, Sparse) and layer.store == "dense":
            held = round(held * (1 - layer.pattern.sparsity))
        found.append(held)
    return found


def test_two_layers_have_the_two_moves_that_there_are() -> None:
    found = moves(two_layers(), SVD, 50, seed=0)
    shifts = {shift_of(c) for c in found}
    assert {(1, -1), (-1, 1)} <= shifts <= {(n, -n) for n in range(-3, 4) if n}
    for candidate in found:
        plan = plan_of(two_layers(), candidate)
        ranks = [int(layer.costs.size.split()[-1]) for layer in plan.layers]
        assert sum(ranks) == 20
        assert ranks != [10, 10]


@pytest.mark.parametrize(
    "candidate",
    [
        SVD,
        RTN,
        Candidate.of({"factorise": "svd", "factorise.rank": 8}),
        Candidate.of({"quantize": "rtn", "quantize.bits": 3, "quantize.group_size": 16}),
        Candidate.of({**SVD.values, **RTN.values}),
        Candidate.of({"sparsify": "wanda", "sparsify.sparsity": 0.5}),
        Candidate.of({"sparsify": "magnitude", "sparsify.sparsity": 0.6, "sparsify.store": "bitmap"}),
    ],
    ids=str,
)
def test_moves_cost_no_more_and_trade_one_layer_for_another(
    candidate: Candidate, profile: ModelProfile
) -> None:
    parent = plan_of(profile, candidate)
    found = moves(profile, candidate, 12, seed=1)
    assert len(found) == 12
    plans = [plan_of(profile, c) for c in found]
    assert len({plan.hash for plan in plans} | {parent.hash}) == 13
    for plan in plans:
        assert plan.weight_bytes <= 1.005 * parent.weight_bytes
        assert plan.prefill_macs <= 1.005 * parent.prefill_macs
        assert sum(sizes(plan)) <= 1.006 * sum(sizes(parent))
        changes = [a - b for a, b in zip(sizes(plan), sizes(parent), strict=True)]
        assert min(changes) < 0 < max(changes)


def test_a_walk_of_moves_never_drifts_from_the_cost_of_where_it_began(profile: ModelProfile) -> None:
    first, candidate = plan_of(profile, SVD), SVD
    for seed in range(25):
        candidate = moves(profile, candidate, 1, seed)[0]
        plan = plan_of(profile, candidate)
        assert plan.weight_bytes <= 1.005 * first.weight_bytes
    assert sum(map(abs, shift_of(candidate))) > 6
    assert unshifted(candidate) == SVD


def test_as_a_rule_layers_of_one_shape_trade(profile: ModelProfile) -> None:
    # Of two layers drawn at random from this model about a quarter are alike.
    found = [shift_of(moves(profile, SVD, 1, seed)[0]) for seed in range(60)]
    pairs = [shift for shift in found if sorted(filter(None, shift)) == [-1, 1]]
    shapes = [(shape.out_features, shape.in_features) for shape in profile.shapes]
    alike = [shapes[shift.index(1)] == shapes[shift.index(-1)] for shift in pairs]
    assert len(pairs) > 20
    assert sum(alike) > 0.6 * len(pairs)


def test_protected_blocks_are_left_alone(profile: ModelProfile) -> None:
    candidate = Candidate.of(
        {**SVD.values, "factorise.protect_first": 1, "factorise.keep_ratio": 0.8, "factorise.floor": 0.2}
    )
    found = moves(profile, candidate, 10, seed=0)
    assert found
    assert all(not any(shift_of(c)[:7]) for c in found)


def test_the_same_seed_draws_the_same_moves(profile: ModelProfile) -> None:
    assert moves(profile, SVD, 5, seed=3) == moves(profile, SVD, 5, seed=3)
    assert moves(profile, SVD, 5, seed=3) != moves(profile, SVD, 5, seed=4)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"factorise": "mpo", "factorise.sites": 2, "factorise.bond_dimension": 4},
        {"factorise": "svd"},
        {"quantize": "rtn", "quantize.bits": 8, "quantize.group_size": 16},
        {"factorise": "svd", "factorise.rank": 1},
        {"sparsify": "wanda", "sparsify.pattern": "2:4"},
    ],
    ids=["dense", "no shift", "no plan", "no more bits", "no less rank", "a pattern"],
)
def test_what_nothing_can_be_moved_in_gives_no_moves(values: dict[str, Any], profile: ModelProfile) -> None:
    assert moves(profile, Candidate.of(values), 4, seed=0) == []


def test_what_comes_after_healing_does_not_show_before_it_and_is_left_alone(profile: ModelProfile) -> None:
    healed = {**SVD.values, **RTN.values, "heal": "fine_tune", "heal.steps": 10}
    found = moves(profile, Candidate.of(healed), 8, seed=0)
    assert len(found) == 8
    assert all("factorise.shift" in c.values and "quantize.shift" not in c.values for c in found)
