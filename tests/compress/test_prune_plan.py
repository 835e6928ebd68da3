"""What pruned models keep and cost, planned without one: every number can be counted on paper."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from hpo.compress.architecture import SMALLEST_SIDE, Architecture, LayerShape
from hpo.compress.flap import Flap, FlapKnobs
from hpo.compress.layer_plan import Dense
from hpo.compress.modegpt_plan import Unknown
from hpo.compress.plan import Plan
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.prune import PruneItems, WandaSp
from hpo.compress.prune_blocks import DropBlocks, DropBlocksKnobs
from hpo.compress.prune_knobs import PruneKnobs
from hpo.compress.prune_plan import Cut, Grain, RemovedBlock, Trimmed, removed, trimmed
from hpo.compress.prune_sections import falling
from hpo.compress.prune_taylor import LlmPruner, LlmPrunerKnobs
from hpo.errors import HpoError, Unsupported

HIDDEN, HEADS, KEYS, HEAD, WIDTH, BLOCKS = 256, 16, 8, 16, 704, 6
GROUP = HEADS // KEYS * HEAD
"""Query rows of a head group."""
GROUP_WEIGHTS = 2 * HIDDEN * (GROUP + HEAD)
"""Of queries, keys, values and the output layer."""
UNIT_WEIGHTS = 3 * HIDDEN


def layers_of(block: int) -> list[tuple[str, int, int, Grain]]:
    """Return the layers of a block like Llama's, with what their items are."""
    at, mlp = f"model.layers.{block}.self_attn", f"model.layers.{block}.mlp"
    reads = Grain(head_columns=GROUP, head_scores=2 * GROUP, queries=HEADS // KEYS)
    return [
        (f"{at}.q_proj", HEADS * HEAD, HIDDEN, Grain(head_rows=GROUP)),
        (f"{at}.k_proj", KEYS * HEAD, HIDDEN, Grain(head_rows=HEAD)),
        (f"{at}.v_proj", KEYS * HEAD, HIDDEN, Grain(head_rows=HEAD)),
        (f"{at}.o_proj", HIDDEN, HEADS * HEAD, reads),
        (f"{mlp}.gate_proj", WIDTH, HIDDEN, Grain(unit_rows=1)),
        (f"{mlp}.up_proj", WIDTH, HIDDEN, Grain(unit_rows=1)),
        (f"{mlp}.down_proj", HIDDEN, WIDTH, Grain(unit_columns=1)),
    ]


def profile_of(*, known_attention: bool = True, key: str = "a model", level: float = 1.0) -> ModelProfile:
    """Return a model of which the first items are worth most, and later blocks `level` times as much as the
    one before."""
    rows = [(block, *layer) for block in range(BLOCKS) for layer in layers_of(block)]
    shapes = tuple(
        LayerShape(name, out, into, block, "attention" if "attn" in name else "mlp", name)
        for block, name, out, into, _ in rows
    )
    arrays: dict[str, Array] = {}
    for _, name, _, _, grain in rows:
        if known_attention or "mlp" in name:
            arrays[name] = grain.to_array()
        else:
            arrays[f"{name}@OddAttention"] = np.zeros(1)
    for block in range(BLOCKS):
        for part, items in (("mlp@units", WIDTH), ("self_attn@heads", KEYS)):
            if known_attention or "mlp" in part:
                worth = np.linspace(1.0, 0.1, items) * level**block
                arrays[f"model.layers.{block}.{part}"] = worth
                arrays[f"model.layers.{block}.{part}.level"] = worth
    facts = {name: np.zeros(BLOCKS) for name in ("parameters", "bytes", "macs", "scores", "stays")}
    facts |= {"number": np.arange(float(BLOCKS)), "parameters": np.full(BLOCKS, 512.0)}
    facts |= {"bytes": np.full(BLOCKS, 2048.0), "scores": np.full(BLOCKS, 512.0)}
    facts["stays"][0] = 1
    prepared = dict.fromkeys(
        ("prune-wanda", "prune-fluctuation", "prune-fluctuation_squared", "prune-taylor_first"), arrays
    )
    prepared |= {
        "block_influence": {"influence": np.array([0.1, 0.6, 0.2, 0.3, 0.2, 0.9])},
        "prune-blocks": facts,
    }
    architecture = Architecture(shapes, 1000, 4000, 5000, 128, 32)
    return ModelProfile(architecture, f"{key}, {known_attention}, {level}", prepared)


def planned(
    profile: ModelProfile, method: PruneItems | None = None, kind: type[PruneKnobs] = PruneKnobs, **knobs: Any
) -> Plan:
    cut = (method or WandaSp()).plan(profile, kind(**knobs))
    return Plan(profile.architecture, cut.layers, rest=cut.rest)


def kept_share(plan: Plan) -> float:
    return plan.linear_parameters / plan.architecture.linear_parameters


def kept(plan: Plan, name: str) -> list[int]:
    """Return how many heads or units the layers of a type keep, block by block."""
    index, whole = (1, WIDTH) if name in ("gate_proj", "up_proj", "down_proj") else (0, KEYS)
    return [
        layer.cut.kept[index] if isinstance(layer, Trimmed) else whole
        for shape, layer in plan.named()
        if shape.type == name
    ]


def test_costs_of_the_layers_of_an_attention_are_worked_by_hand() -> None:
    # Three of four groups stay, each of two query heads of eight dimensions: 48 of 64 rows and columns.
    # Scores of 10 tokens spare 100 * 2 * 8 twice, for queries with keys and for values.
    cut = Cut((3, 0), (4, 0))
    query = trimmed(64, 32, Grain(head_rows=16, has_bias=1), cut, 10, "wanda")
    assert isinstance(query, Trimmed)
    assert (query.rows, query.columns, query.matrices) == (48, 32, ((48, 32),))
    assert query.costs.parameters == query.costs.resident == 48 * 32 - 16  # sixteen biases fewer
    assert (query.costs.macs_per_token, query.costs.macs_per_call) == (48 * 32, 0)
    assert query.costs.size == "48 x 32 of 64 x 32"
    reads = Grain(head_columns=16, head_scores=32, queries=2)
    output = trimmed(32, 64, reads, cut, 10, "wanda").costs
    assert (output.parameters, output.macs_per_token, output.macs_per_call) == (32 * 48, 32 * 48, -3200)


def test_a_bias_comes_where_there_was_none_and_something_is_no_longer_read() -> None:
    down, cut = Grain(unit_columns=1), Cut((0, 20), (0, 32))
    assert trimmed(16, 32, down, cut, 10, "f", compensated=True).costs.parameters == 16 * 20 + 16
    biased = Grain(unit_columns=1, has_bias=1)
    assert trimmed(16, 32, biased, cut, 10, "f", compensated=True).costs.parameters == 16 * 20
    up = trimmed(32, 16, Grain(unit_rows=1), cut, 10, "f", compensated=True)
    assert up.costs.parameters == 16 * 20


def test_plans_that_lose_the_same_number_of_other_items_have_other_keys() -> None:
    grain, cut = Grain(unit_rows=1), Cut((0, 20), (0, 32))
    keys = {
        trimmed(32, 16, grain, cut, 10, "wanda").costs.key,
        trimmed(32, 16, grain, cut, 10, "fluctuation").costs.key,
        trimmed(32, 16, grain, cut, 10, "wanda", compensated=True).costs.key,
        trimmed(32, 16, grain, Cut((0, 21), (0, 32)), 10, "wanda").costs.key,
    }
    assert len(keys) == 4


def test_a_layer_of_a_block_that_is_cut_elsewhere_stays_dense() -> None:
    assert trimmed(16, 16, Grain(head_rows=4), Cut((4, 20), (4, 32)), 10, "wanda") == Dense(16, 16)


def test_nothing_is_left_of_a_removed_block() -> None:
    layer = removed(64, 32)
    assert (layer.kind, layer.matrices, layer.costs.parameters, layer.costs.macs(10)) == ("removed", (), 0, 0)
    # 70 numbers beside the layers, 4 bytes each where a plan counts 2: 140 bytes more go than counted.
    beside = RemovedBlock(3, 70, 280, macs_per_token=5, scores=6, context=10, weight_bits=16)
    assert (beside.dense_parameters, beside.dense_macs_per_token) == (70, 5)
    assert (beside.costs.parameters, beside.costs.resident) == (0, 0)
    assert (beside.costs.packed_bytes, beside.costs.macs(10)) == (-140, -600)


@pytest.mark.parametrize("keep", [0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95])
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"structure": "global"},
        {"structure": "global", "floor": 0.5},
        {"attention": 2.0, "mlp": 0.7},
        {"structure": "global", "attention": 0.7},
        {"multiple": 32},
        {"structure": "global", "multiple": 16, "compensate": True},
    ],
)
def test_the_weights_meet_the_ratio_within_half_a_per_cent(keep: float, knobs: dict[str, Any]) -> None:
    plan = planned(profile_of(level=0.9), keep_ratio=keep, **knobs)
    assert kept_share(plan) == pytest.approx(keep, abs=0.005)
    assert min(kept(plan, "o_proj")) >= 1
    assert min(kept(plan, "down_proj")) >= SMALLEST_SIDE


def test_a_uniform_plan_keeps_the_same_share_everywhere() -> None:
    plan = planned(profile_of(), keep_ratio=0.5)
    assert kept(plan, "q_proj") == kept(plan, "k_proj") == kept(plan, "o_proj") == [KEYS // 2] * BLOCKS
    assert kept(plan, "up_proj") == kept(plan, "down_proj") == [WIDTH // 2] * BLOCKS
    assert kept_share(plan) == 0.5


def test_a_global_plan_is_one_threshold() -> None:
    # Each block is worth half of the one before: nothing of a later block stays where a better item went.
    profile = profile_of(level=0.5)
    plan = planned(profile, keep_ratio=0.4, structure="global")
    units, heads = kept(plan, "up_proj"), kept(plan, "o_proj")
    worth = profile.prepared("prune-wanda")
    best_lost = max(
        float(worth[f"model.layers.{block}.mlp@units"][number])
        for block, number in enumerate(units)
        if number < WIDTH
    )
    worst_kept = min(
        float(worth[f"model.layers.{block}.mlp@units"][number - 1])
        for block, number in enumerate(units)
        if number > SMALLEST_SIDE
    )
    assert worst_kept >= best_lost
    assert units == sorted(units, reverse=True)
    assert heads == sorted(heads, reverse=True)
    assert (units[-1], heads[-1]) == (SMALLEST_SIDE, 1)


def test_a_head_that_does_not_fit_makes_room_for_units_or_they_for_it() -> None:
    """Heads are coarse, units are fine: between them any budget can be met."""
    for keep in np.linspace(0.3, 0.95, 40):
        plan = planned(profile_of(level=0.8), keep_ratio=float(keep), structure="global")
        assert float(keep) - 0.005 <= kept_share(plan) <= float(keep) + 1e-12


def test_units_come_in_multiples_which_halve_where_there_is_no_room() -> None:
    plan = planned(profile_of(), keep_ratio=0.55, multiple=64)
    assert all(number % 64 == 0 for number in kept(plan, "up_proj"))
    small = planned(profile_of(), keep_ratio=0.06, multiple=256)
    assert kept_share(small) == pytest.approx(0.06, abs=0.005)


def test_multipliers_shift_weights_between_heads_and_units() -> None:
    for structure in ("uniform", "global"):
        even = planned(profile_of(), keep_ratio=0.5, structure=structure)
        more = planned(profile_of(), keep_ratio=0.5, structure=structure, attention=1.5)
        less = planned(profile_of(), keep_ratio=0.5, structure=structure, mlp=1.5)
        assert sum(kept(more, "o_proj")) > sum(kept(even, "o_proj")) > sum(kept(less, "o_proj"))
        assert sum(kept(more, "up_proj")) < sum(kept(even, "up_proj")) < sum(kept(less, "up_proj"))


def test_the_floor_holds_every_section_to_a_share_of_its_uniform_size() -> None:
    free = planned(profile_of(level=0.5), keep_ratio=0.4, structure="global")
    held = planned(profile_of(level=0.5), keep_ratio=0.4, structure="global", floor=0.5)
    assert min(kept(free, "up_proj")) == SMALLEST_SIDE
    assert min(kept(held, "up_proj")) >= int(0.2 * WIDTH)
    assert kept_share(held) == pytest.approx(0.4, abs=0.005)


def test_protected_blocks_stay_as_they_are_and_count() -> None:
    for structure in ("uniform", "global"):
        plan = planned(profile_of(), keep_ratio=0.6, structure=structure, protect_first=1, protect_last=1)
        kinds = {shape.block: layer.kind for shape, layer in plan.named()}
        assert kinds[0] == kinds[5] == "dense"
        assert all(kinds[block] == "narrow" for block in range(1, 5))
        assert kept_share(plan) == pytest.approx(0.6, abs=0.005)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"keep_ratio": 0.01}, r"0\.05 of the weights are left in any case[\s\S]*keep more"),
        ({"keep_ratio": 0.5, "protect_first": 4}, r"0\.683 of the weights are left[\s\S]*protect fewer"),
        ({"keep_ratio": 0.5, "protect_first": 3, "protect_last": 3}, "1 of the weights are left"),
    ],
)
def test_a_ratio_that_leaves_nothing_is_refused_with_what_stays(knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(Unsupported, match=said):
        planned(profile_of(), **knobs)


def test_single_heads_are_refused_where_queries_share_keys() -> None:
    with pytest.raises(
        Unsupported, match=r"heads=single, but model\.layers\.0\.self_attn\.o_proj reads heads of"
    ):
        planned(profile_of(), keep_ratio=0.5, heads="single")
    alone = profile_of(known_attention=False)
    assert planned(alone, keep_ratio=0.6, heads="single") == planned(alone, keep_ratio=0.6)


def test_an_attention_that_nobody_knows_stays_dense_and_is_named() -> None:
    plan = planned(profile_of(known_attention=False), keep_ratio=0.75)
    assert kept_share(plan) == pytest.approx(0.75, abs=0.005)
    assert isinstance(plan.layers[0], Unknown)
    records = {row.layer: row.size for row in plan.records()}
    assert records["model.layers.0.self_attn.q_proj"] == "as it is: OddAttention cannot be cut"
    assert records["model.layers.0.mlp.up_proj"].endswith(f"of {WIDTH} x {HIDDEN}")
    with pytest.raises(Unsupported, match="OddAttention cannot be cut"):
        planned(profile_of(known_attention=False), keep_ratio=0.2)


def test_equal_items_go_from_the_last_one_on() -> None:
    assert falling(np.array([1.0, 2.0, 1.0, 2.0])).tolist() == [1, 3, 0, 2]


def test_equal_layers_share_a_plan() -> None:
    plan = planned(profile_of(), keep_ratio=0.5)
    layers = {shape.name: layer for shape, layer in plan.named()}
    assert layers["model.layers.0.mlp.up_proj"] is layers["model.layers.5.mlp.gate_proj"]


def test_biases_that_compensation_adds_count_against_the_budget() -> None:
    plan = planned(profile_of(), keep_ratio=0.5, compensate=True)
    assert kept_share(plan) <= 0.5
    added = sum(layer.costs.parameters - layer.matrices[0][0] * layer.matrices[0][1] for layer in plan.layers)
    assert added == BLOCKS * 2 * HIDDEN


@pytest.mark.parametrize("structure", ["uniform", "global"])
def test_damage_grows_as_less_is_kept(structure: str) -> None:
    profile, method = profile_of(), WandaSp()
    damages = [
        method.damage(profile, planned(profile, keep_ratio=keep, structure=structure).layers)
        for keep in (0.9, 0.6, 0.3)
    ]
    assert all((less >= more).all() and less.sum() > more.sum() for more, less in pairwise(damages))
    assert all(((d >= 0) & (d < 1)).all() for d in damages)


def test_damage_is_the_root_of_the_share_of_importance_that_goes() -> None:
    profile = profile_of()
    plan = planned(profile, keep_ratio=0.5)
    worth = np.linspace(1.0, 0.1, KEYS)
    expected = np.sqrt(worth[KEYS // 2 :].sum() / worth.sum())
    found = WandaSp().damage(profile, plan.layers)
    assert found[:4] == pytest.approx(np.full(4, expected))


def test_what_must_be_prepared_follows_from_the_knobs() -> None:
    def names(method: PruneItems, **values: Any) -> set[str]:
        knobs = method.knob_type.model_validate({"keep_ratio": 0.5, **values})
        asked = {name: (getattr(knobs, name),) for name in type(knobs).model_fields}
        return {preparation.name for preparation in method.preparations(asked)}

    assert names(WandaSp()) == {"prune-wanda"}
    assert names(Flap()) == {"prune-fluctuation_squared"}
    assert names(Flap(), head_scores="plain") == {"prune-fluctuation"}
    assert names(LlmPruner(), order="second") == {"prune-taylor_second"}


def test_the_defaults_of_each_method_are_its_papers() -> None:
    flap = planned(profile_of(level=0.5), Flap(), FlapKnobs, keep_ratio=0.5)
    assert len(set(kept(flap, "up_proj"))) > 1
    assert all(layer.compensated for layer in flap.layers if isinstance(layer, Trimmed))
    pruner = planned(profile_of(level=0.5), LlmPruner(), LlmPrunerKnobs, keep_ratio=0.5)
    assert len(set(kept(pruner, "up_proj"))) == 1
    assert not any(layer.compensated for layer in pruner.layers if isinstance(layer, Trimmed))


def test_a_profile_without_what_is_needed_says_so() -> None:
    with pytest.raises(HpoError, match="prune-taylor_second"):
        planned(profile_of(key="other"), LlmPruner(), LlmPrunerKnobs, keep_ratio=0.5, order="second")


def dropped(**knobs: Any) -> Plan:
    profile = profile_of()
    cut = DropBlocks().plan(profile, DropBlocksKnobs(**knobs))
    return Plan(profile.architecture, cut.layers, rest=cut.rest)


def gone(plan: Plan) -> list[int]:
    return sorted({shape.block for shape, layer in plan.named() if layer.kind == "removed"})


def test_the_blocks_with_the_least_influence_go_but_never_the_first() -> None:
    # By influence: 0 (0.1), 2 and 4 (0.2), 3, 1, 5.
    assert gone(dropped(blocks=1)) == [2]
    assert gone(dropped(blocks=3)) == [2, 3, 4]
    assert gone(dropped(blocks=3, protect_first=3)) == [3, 4, 5]
    assert gone(dropped(blocks=2, protect_last=2)) == [2, 3]
    assert gone(dropped(blocks=5)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("keep", "blocks"), [(0.99, 0), (0.85, 1), (0.7, 2), (0.75, 2), (0.5, 3), (0.1, 5)])
def test_a_ratio_removes_the_nearest_number_of_blocks_of_two_the_larger(keep: float, blocks: int) -> None:
    plan = dropped(keep_ratio=keep)
    assert len(gone(plan)) == len(plan.rest) == blocks
    assert kept_share(plan) == pytest.approx(1 - blocks / BLOCKS)


def test_what_goes_with_a_block_is_counted() -> None:
    plan, dense = dropped(blocks=2), Plan(profile_of().architecture, profile_dense())
    block = sum(out * into for _, out, into, _ in layers_of(0))
    assert dense.parameters - plan.parameters == 2 * (block + 512)
    assert dense.weight_bytes - plan.weight_bytes == 2 * 4 * (block + 512)
    assert dense.prefill_macs - plan.prefill_macs == 2 * (128 * block + 128**2 * 512)
    assert plan.hash not in {dropped(blocks=1).hash, dropped(blocks=3).hash}


def profile_dense() -> tuple[Dense, ...]:
    return tuple(Dense(shape.out_features, shape.in_features) for shape in profile_of().shapes)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"blocks": 6}, r"blocks=6, but of 6 blocks 5 may go: the first one stays, caches keep count"),
        ({"blocks": 2, "protect_first": 3, "protect_last": 2}, "of 6 blocks 1 may go"),
        ({"keep_ratio": 0.05}, r"keep_ratio=0\.05, but of 6 blocks 5 may go"),
        ({"blocks": 1, "protect_last": 9}, "of 6 blocks 0 may go"),
    ],
)
def test_more_blocks_than_may_go_are_refused(knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(Unsupported, match=said):
        dropped(**knobs)


@pytest.mark.parametrize("knobs", [{}, {"blocks": 1, "keep_ratio": 0.5}])
def test_either_a_number_or_a_ratio_is_given(knobs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either blocks or keep_ratio"):
        DropBlocksKnobs(**knobs)


def test_damage_of_a_removed_block_follows_its_influence() -> None:
    plan = dropped(blocks=2)
    damage = DropBlocks().damage(profile_of(), plan.layers)
    by_block = {shape.block: float(d) for shape, d in zip(plan.architecture.layers, damage, strict=True)}
    assert by_block == pytest.approx({0: 0, 1: 0, 2: 0.2**0.5, 3: 0, 4: 0.2**0.5, 5: 0})
