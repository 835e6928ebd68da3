import pytest

from hpo.compress import layer_plan, mpo_plan, plan
from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.heal import DistilKnobs, FineTuneKnobs
from hpo.errors import Unsupported

LAYER = LayerShape("model.layers.0.mlp.up_proj", 16, 12, 0, "mlp", "model.layers.0.mlp.up_proj")
ARCHITECTURE = Architecture((LAYER,), 100, 400, 5000, context=10, weight_bits=32)
SVD, WHITENED = (
    (plan.Change("factorise", method, plan.Plan(ARCHITECTURE, ())),) for method in ("svd", "whitened_svd")
)


def test_costs_of_a_low_rank_layer_are_worked_by_hand() -> None:
    layer = layer_plan.LowRank(16, 12, 3)
    assert layer.costs.parameters == 3 * (16 + 12)
    assert layer.costs.macs(10) == 10 * 3 * 28
    whole = plan.Plan(ARCHITECTURE, (layer,), SVD)
    assert (whole.parameters, whole.weight_bytes) == (184, 400 + 84 * 4)
    assert whole.prefill_macs == 5000 + 840


def test_costs_of_an_mpo_layer_are_worked_by_hand() -> None:
    layer = mpo_plan.Mpo((4, 4), (3, 4), (5,), "rebuild")
    assert layer.costs.parameters == 4 * 3 * 5 + 5 * 4 * 4
    assert layer.costs.macs(10) == 10 * 192 + (12 * 5 * 16)
    chained = mpo_plan.Mpo((4, 4), (3, 4), (5,), "chain")
    # first core: 4 (inputs left) x 3 x 4 x 5; second: 4 outputs done x bond 5 x 4 x 4
    assert chained.costs.macs(10) == 10 * (4 * 3 * 4 * 5 + 4 * 5 * 4 * 4)
    cached = mpo_plan.Mpo((4, 4), (3, 4), (5,), "cached")
    assert cached.costs.macs(10) == 1920
    assert cached.costs.resident == cached.costs.parameters + 192


def test_the_break_even_rank_is_the_last_that_saves_weights() -> None:
    assert LAYER.break_even_rank * 28 < 192 <= (LAYER.break_even_rank + 1) * 28
    wide = LayerShape("x.0.y", 4096, 11008, 0, "mlp", "x.0.y")
    assert wide.break_even_rank == 2985


@pytest.mark.parametrize("rank", [0, -1, 7, 1000])
def test_a_rank_above_the_cap_is_refused_in_a_hand_written_plan(rank: int) -> None:
    with pytest.raises(Unsupported, match=r"16 x 12[\s\S]*allowed: 1 to 6"):
        layer_plan.LowRank(16, 12, rank)


def test_a_rank_that_saves_nothing_becomes_dense() -> None:
    assert layer_plan.low_rank(16, 12, 6).kind == "dense"
    assert layer_plan.low_rank(16, 12, 5).kind == "low_rank"


def test_bonds_above_their_cap_are_clipped_and_refused_by_hand() -> None:
    assert mpo_plan.bond_caps((4, 4), (3, 4)) == (12,)
    with pytest.raises(Unsupported, match="allowed: 1 to 12"):
        mpo_plan.Mpo((4, 4), (3, 4), (13,))
    assert mpo_plan.mpo(16, 12, 2, 500).kind == "dense"


def test_equal_plans_hash_alike_and_healing_tells_them_apart() -> None:
    layers = (layer_plan.low_rank(16, 12, 3),)
    heal = plan.HealPlan("fine_tune", FineTuneKnobs(steps=50))
    same = (
        plan.Plan(ARCHITECTURE, layers, SVD),
        plan.Plan(ARCHITECTURE, (layer_plan.LowRank(16, 12, 3),), SVD),
    )
    assert same[0].hash == same[1].hash
    others = {
        plan.Plan(ARCHITECTURE, layers, WHITENED).hash,
        plan.Plan(ARCHITECTURE, layers, SVD, heal).hash,
        plan.Plan(ARCHITECTURE, (layer_plan.low_rank(16, 12, 2),), SVD).hash,
        same[0].hash,
    }
    assert len(others) == 4


def test_a_plan_without_factors_is_the_dense_model_whatever_its_method() -> None:
    dense = plan.Plan(ARCHITECTURE, (layer_plan.Dense(16, 12),))
    nothing = plan.Plan(
        ARCHITECTURE, (layer_plan.low_rank(16, 12, 99),), SVD, plan.HealPlan("distil", DistilKnobs(steps=9))
    )
    assert dense.hash == nothing.hash == "dense"
    assert dense.parameters == 292


def test_records_say_what_became_of_each_layer() -> None:
    (record,) = plan.Plan(ARCHITECTURE, (layer_plan.low_rank(16, 12, 3),), SVD).records()
    assert (record.kind, record.size, record.parameters, record.bytes) == ("low_rank", "rank 3", 84, 336)


def test_an_architecture_round_trips_through_its_mapping() -> None:
    assert Architecture.from_mapping(ARCHITECTURE.to_mapping()) == ARCHITECTURE
