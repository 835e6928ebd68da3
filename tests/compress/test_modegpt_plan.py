"""Sizes and costs of narrower models, planned without one: every number can be counted on paper."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.layer_plan import Dense
from hpo.compress.modegpt import Modegpt
from hpo.compress.modegpt_knobs import ModegptKnobs
from hpo.compress.modegpt_plan import Cut, Grain, Narrow, Unknown, narrow
from hpo.compress.plan import Plan
from hpo.compress.profile import Array, ModelProfile
from hpo.errors import HpoError, Unsupported

HIDDEN, HEADS, KEYS, HEAD, WIDTH = 512, 8, 4, 64, 1408
BASIS = "modegpt-elimination"


def layers_of(block: int) -> list[tuple[str, int, int, Grain]]:
    """Return the layers of a block like Llama's, with what their units are."""
    scores = {"query_key_scores": 2 * HEADS, "indices": KEYS}
    at, mlp = f"model.layers.{block}.self_attn", f"model.layers.{block}.mlp"
    return [
        (f"{at}.q_proj", HEADS * HEAD, HIDDEN, Grain(2 * HEADS, **scores)),
        (f"{at}.k_proj", KEYS * HEAD, HIDDEN, Grain(2 * KEYS)),
        (f"{at}.v_proj", KEYS * HEAD, HIDDEN, Grain(value_rows=KEYS)),
        (f"{at}.o_proj", HIDDEN, HEADS * HEAD, Grain(value_columns=HEADS)),
        (f"{mlp}.gate_proj", WIDTH, HIDDEN, Grain(mlp_rows=1)),
        (f"{mlp}.up_proj", WIDTH, HIDDEN, Grain(mlp_rows=1)),
        (f"{mlp}.down_proj", HIDDEN, WIDTH, Grain(mlp_columns=1)),
    ]


def profile_of(blocks: int = 6, *, known_attention: bool = True, key: str = "a model") -> ModelProfile:
    rows = [(block, *layer) for block in range(blocks) for layer in layers_of(block)]
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
    sensitivity = {}
    for block in range(blocks):
        sizes = {"mlp@mlp": WIDTH, "self_attn@query_key": HEAD // 2, "self_attn@value": HEAD}
        for part, units in sizes.items():
            if known_attention or "mlp" in part:
                arrays[f"model.layers.{block}.{part}"] = np.arange(units, 0, -1.0) ** 2
                sensitivity[f"model.layers.{block}.{part}"] = np.array([2.0, 1.0, 0.5, 0.1]) * (block + 1)
    architecture = Architecture(shapes, 1000, 4000, 5000, 128, 32)
    prepared = {
        BASIS: arrays,
        f"{BASIS}.sensitivity": sensitivity,
        "block_influence": {"influence": np.linspace(0.1, 0.6, blocks)},
    }
    return ModelProfile(architecture, f"{key}, {blocks} blocks, {known_attention}", prepared)


def planned(profile: ModelProfile, **knobs: Any) -> Plan:
    layers = Modegpt().plan(profile, ModegptKnobs(**knobs))
    return Plan(profile.architecture, layers)


def kept_share(plan: Plan) -> float:
    return plan.linear_parameters / plan.architecture.linear_parameters


def sizes_of(plan: Plan, name: str) -> list[tuple[int, int]]:
    """Return rows and columns of the layers of a type, block by block."""
    return [
        (layer.rows, layer.columns) if isinstance(layer, Narrow) else (shape.out_features, shape.in_features)
        for shape, layer in plan.named()
        if shape.name.endswith(name)
    ]


def test_costs_of_a_query_layer_are_worked_by_hand() -> None:
    # Two heads of eight dimensions over one key head, inputs of 16: of four rotary pairs three are kept, so
    # 2 * 6 of 16 rows. Scores of 10 tokens spare 100 * 2 * 2; the numbers of three pairs take 12 bytes.
    grain = Grain(query_key_rows=4, query_key_scores=4, indices=1, has_bias=1)
    plan = narrow(16, 16, grain, Cut((3, 8, 0), (4, 8, 0)), 10, "leverage")
    assert isinstance(plan, Narrow)
    assert (plan.rows, plan.columns) == (12, 16)
    assert plan.costs.macs_per_token == 12 * 16
    assert plan.costs.parameters == plan.costs.resident == 12 * 16 - 4  # four biases fewer
    assert plan.costs.macs_per_call == -400
    assert plan.costs.packed_bytes == 12
    assert plan.costs.size == "12 x 16 of 16 x 16"


def test_costs_of_an_output_layer_and_of_an_mlp_are_worked_by_hand() -> None:
    # Values of both heads shrink from 8 to 5: 10 of 16 columns, and 100 * 2 * 3 multiplications of scores.
    output = narrow(16, 16, Grain(value_columns=2), Cut((4, 5, 0), (4, 8, 0)), 10, "leverage").costs
    assert (output.parameters, output.macs_per_call, output.packed_bytes) == (160, -600, 0)
    up = narrow(32, 16, Grain(mlp_rows=1, has_bias=1), Cut((0, 0, 20), (0, 0, 32)), 10, "leverage").costs
    assert (up.parameters, up.macs_per_token, up.macs_per_call) == (20 * 16 - 12, 20 * 16, 0)
    down = narrow(16, 32, Grain(mlp_columns=1), Cut((0, 0, 20), (0, 0, 32)), 10, "leverage").costs
    assert (down.parameters, down.macs_per_call) == (320, 0)


def test_a_fused_layer_is_cut_by_both_sizes_of_its_heads() -> None:
    # Two heads of eight: 16 queries, 16 keys, 16 values; with heads of 6 and 5 they are 12 + 12 + 10.
    grain = Grain(query_key_rows=8, value_rows=2, query_key_scores=4, indices=2)
    plan = narrow(48, 16, grain, Cut((3, 5, 0), (4, 8, 0)), 10, "leverage")
    assert isinstance(plan, Narrow)
    assert plan.rows == 34
    other = narrow(48, 16, grain, Cut((2, 5, 0), (4, 8, 0)), 10, "leverage")
    assert other.costs.key != plan.costs.key
    assert narrow(48, 16, grain, Cut((3, 5, 0), (4, 8, 0)), 10, "elimination").costs.key != plan.costs.key


def test_a_layer_of_a_block_that_is_cut_elsewhere_stays_dense() -> None:
    kept = narrow(16, 16, Grain(value_rows=2), Cut((3, 8, 0), (4, 8, 0)), 10, "leverage")
    assert kept == Dense(16, 16)


@pytest.mark.parametrize("keep", [0.2, 0.35, 0.5, 0.65, 0.8, 0.95])
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"allocation": "softmax"},
        {"allocation": "sensitivity", "floor": 0.2},
        {"query_key": 2.0, "value": 0.7},
        {"multiple": 32, "head_multiple": 8},
        {"block_weight": (1.0, 2.0, 1.0, 1.0, 0.5, 1.0)},
    ],
)
def test_the_weights_meet_the_ratio_within_half_a_per_cent(keep: float, knobs: dict[str, Any]) -> None:
    plan = planned(profile_of(), keep_ratio=keep, **knobs)
    assert kept_share(plan) == pytest.approx(keep, abs=0.005)


def test_a_uniform_plan_keeps_the_same_share_of_every_size() -> None:
    plan = planned(profile_of(), keep_ratio=0.5, query_key=1.0)
    assert sizes_of(plan, "gate_proj")[0][0] == pytest.approx(WIDTH / 2, abs=2)
    for (rows, _), (key_rows, _) in zip(sizes_of(plan, "q_proj"), sizes_of(plan, "k_proj"), strict=True):
        assert rows == 2 * key_rows == HEADS * HEAD // 2
    assert [columns for _, columns in sizes_of(plan, "o_proj")] == [HEADS * HEAD // 2] * 6


def test_sizes_are_multiples() -> None:
    plan = planned(profile_of(), keep_ratio=0.55, multiple=64, head_multiple=16, allocation="softmax")
    assert all(rows % 64 == 0 for rows, _ in sizes_of(plan, "up_proj"))
    assert all(rows % (16 * HEADS) == 0 for rows, _ in sizes_of(plan, "q_proj"))
    assert all(rows % (16 * KEYS) == 0 for rows, _ in sizes_of(plan, "v_proj"))


def test_softmax_takes_more_from_blocks_that_change_little_but_keeps_the_floor() -> None:
    plan = planned(profile_of(), keep_ratio=0.5, allocation="softmax", temperature=0.1, floor=0.5)
    widths = [rows for rows, _ in sizes_of(plan, "up_proj")]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]
    assert widths[0] >= WIDTH // 4 - 1
    even = planned(profile_of(), keep_ratio=0.5, allocation="softmax", temperature=100)
    assert max(rows for rows, _ in sizes_of(even, "up_proj")) < WIDTH * 0.52


def test_sensitivity_keeps_more_where_the_loss_rises_more() -> None:
    plan = planned(profile_of(), keep_ratio=0.5, allocation="sensitivity", floor=0.2)
    widths = [rows for rows, _ in sizes_of(plan, "up_proj")]
    assert widths[-1] > widths[0]


def test_multipliers_shift_weights_between_the_sizes() -> None:
    even = planned(profile_of(), keep_ratio=0.5, query_key=1.0)
    more = planned(profile_of(), keep_ratio=0.5, query_key=1.5)
    assert sizes_of(more, "q_proj")[0][0] > sizes_of(even, "q_proj")[0][0]
    assert sizes_of(more, "up_proj")[0][0] < sizes_of(even, "up_proj")[0][0]
    values = planned(profile_of(), keep_ratio=0.5, query_key=1.0, value=1.5)
    assert sizes_of(values, "v_proj")[0][0] > sizes_of(even, "v_proj")[0][0]


def test_protected_blocks_stay_as_they_are_and_count() -> None:
    plan = planned(profile_of(), keep_ratio=0.6, protect_first=1, protect_last=1)
    kinds = {shape.block: layer.kind for shape, layer in plan.named()}
    assert kinds[0] == kinds[5] == "dense"
    assert all(kinds[block] == "narrow" for block in range(1, 5))
    assert kept_share(plan) == pytest.approx(0.6, abs=0.005)
    with pytest.raises(Unsupported, match=r"0\.667 of the weights cannot be cut"):
        planned(profile_of(), keep_ratio=0.5, protect_first=4)


def test_an_attention_that_nobody_knows_stays_dense_and_is_named() -> None:
    plan = planned(profile_of(known_attention=False), keep_ratio=0.6)
    assert kept_share(plan) == pytest.approx(0.6, abs=0.005)
    first = plan.layers[0]
    assert isinstance(first, Unknown)
    assert first.kind == "dense"
    records = {row.layer: row.size for row in plan.records()}
    assert records["model.layers.0.self_attn.q_proj"] == "as it is: OddAttention cannot be cut"
    assert records["model.layers.0.mlp.up_proj"].endswith(f"of {WIDTH} x {HIDDEN}")
    with pytest.raises(Unsupported, match=r"0\.267 of the weights cannot be cut \(OddAttention"):
        planned(profile_of(known_attention=False), keep_ratio=0.2)


def test_a_ratio_too_small_for_the_floor_of_steps_halves_the_steps() -> None:
    plan = planned(profile_of(), keep_ratio=0.05, multiple=256, head_multiple=64)
    assert kept_share(plan) == pytest.approx(0.05, abs=0.005)


def test_there_must_be_a_weight_for_every_block() -> None:
    with pytest.raises(Unsupported, match="2 block weights for 6 blocks"):
        planned(profile_of(), keep_ratio=0.5, block_weight=(1.0, 2.0))


def test_a_profile_without_what_is_needed_says_so() -> None:
    with pytest.raises(HpoError, match="modegpt-leverage"):
        planned(profile_of(), keep_ratio=0.5, order="leverage")


def test_damage_grows_as_less_is_kept() -> None:
    profile, method = profile_of(), Modegpt()
    damages = [
        method.damage(profile, planned(profile, keep_ratio=keep, query_key=1.0).layers)
        for keep in (0.9, 0.6, 0.3)
    ]
    assert all((less > more).all() for more, less in pairwise(damages))
    assert all(((d > 0) & (d < 1)).all() for d in damages)


def test_what_must_be_prepared_follows_from_the_knobs() -> None:
    def names(**values: Any) -> set[str]:
        knobs = ModegptKnobs(keep_ratio=0.5, **values)
        asked = {name: (getattr(knobs, name),) for name in ModegptKnobs.model_fields}
        return {preparation.name for preparation in Modegpt().preparations(asked)}

    assert names() == {BASIS}
    assert names(order="leverage", allocation="softmax") == {"modegpt-leverage", "block_influence"}
    assert names(allocation="sensitivity") == {BASIS, f"{BASIS}.sensitivity"}
