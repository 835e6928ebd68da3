from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.compress.awq import Awq
from hpo.compress.encoded_plan import Encoded
from hpo.compress.gptq import Gptq
from hpo.compress.mixed_bits import BITS, allotted, gains_per_bit
from hpo.compress.mixed_knobs import typical_group
from hpo.compress.plan import Plan
from hpo.compress.planner import plan_of, preparations_for, preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.quantize import RoundNearest
from hpo.compress.recipe import check_space
from hpo.errors import InvalidStudy, Unsupported
from hpo.models.dense import DenseModel
from hpo.space import Candidate, Choice, Float, Int, SearchSpace
from tests.compress import small


@pytest.fixture(scope="module")
def base(llama: DenseModel) -> Profiler:
    return Profiler(llama, small.corpus(), small.CONTEXT)


def planned(base: Profiler, method: str = "rtn", more: dict[str, Any] | None = None, **knobs: Any) -> Plan:
    given: dict[str, Any] = {"quantize": method, "quantize.group_size": 16}
    given |= {f"quantize.{name}": value for name, value in knobs.items()} | (more or {})
    asked = Candidate.of(given)
    return plan_of(base.profile(preparations_of(asked)), asked)


def bits_of(plan: Plan) -> list[int]:
    """Return the bits of every layer, as its quantizer has them."""
    quantizers = [layer.quantizer for layer in plan.layers if isinstance(layer, Encoded)]
    assert len(quantizers) == len(plan.layers)
    return [int(str(quantizer.format.key)[0]) for quantizer in quantizers]


def mean_bits(plan: Plan) -> float:
    sizes = [
        sum(rows * columns for rows, columns in layer.inner.matrices)
        for layer in plan.layers
        if isinstance(layer, Encoded)
    ]
    return float(np.average(bits_of(plan), weights=sizes))


def test_gains_are_worked_by_hand() -> None:
    # At 2, 3, 4 and 8 bits. The first curve is convex. The second falls by 1, then by 5: 3 a bit over both.
    # The third rises with the bits, which is noise, and is lifted to 1, 1, 0.5, 0.5: 0.25 a bit over the
    # first two. The last falls by 2.8 over its last four bits, more a bit than before: 3 in all over 6 bits.
    rises = np.array([[8.0, 4, 2, 1], [8, 7, 2, 2], [0, 1, 0, 0.5], [3, 2.9, 2.8, 0]])
    expected = [[4, 2, 0.25], [3, 3, 0], [0.25, 0.25, 0], [0.5, 0.5, 0.5]]
    assert gains_per_bit(rises).tolist() == [pytest.approx(row) for row in expected]


def test_bits_go_where_they_take_most_off_the_loss_by_hand() -> None:
    # Two layers of 10 weights; beyond 2 bits each there is room for 20 bits more. The first gains 4, 2, ...
    # for its steps of 10 bits, the second 3, 1: so the first takes one, the second one.
    rises = np.array([[8.0, 4, 2, 2], [4, 1, 0, 0]])
    weights = np.array([10.0, 10.0])
    assert allotted(60, 0.3, weights, rises).tolist() == [3, 3]
    assert allotted(70, 0.3, weights, rises).tolist() == [4, 3]
    assert allotted(80, 0.3, weights, rises).tolist() == [4, 4]
    assert allotted(40, 0.3, weights, rises).tolist() == [2, 2]
    assert allotted(160, 0.3, weights, rises).tolist() == [8, 8]


def test_large_layers_pay_more_for_a_bit() -> None:
    rises = np.array([[8.0, 4, 2, 1], [8.0, 4, 2, 1]])
    assert allotted(2 * 40 + 10, 0.3, np.array([30.0, 10.0]), rises).tolist() == [2, 3]


def test_a_budget_that_steps_do_not_meet_is_met_by_a_step_up_and_another_down() -> None:
    # 3.3 bits of 1,000 weights: the first layer may step up by 400 bits, the others by 300. From the fewest,
    # 2,000, the steps bought leave some 100 bits; one up and one down come to exactly that.
    weights, rises = np.array([400.0, 300.0, 300.0]), np.array([[9.0, 6, 4, 1], [9, 4, 2, 1], [9, 5, 3, 1]])
    found = allotted(3300, 16.5, weights, rises)
    assert abs(found @ weights - 3300) == min(
        abs(np.array(each) @ weights - 3300) for each in product(BITS.tolist(), repeat=3)
    )


LAYERS = st.lists(
    st.tuples(st.integers(1, 60), st.lists(st.floats(0, 9), min_size=4, max_size=4)), min_size=1
)


@settings(deadline=None)
@given(LAYERS, st.floats(2, 8))
def test_the_budget_is_missed_by_no_more_than_the_slack_or_a_step_of_the_largest_layer(
    layers: list[tuple[int, list[float]]], mean: float
) -> None:
    weights, rises = np.array([float(size) for size, _ in layers]), np.array([each for _, each in layers])
    budget, slack = mean * weights.sum(), 0.005 * mean * weights.sum()
    spent = float(allotted(budget, slack, weights, rises) @ weights)
    assert abs(spent - budget) <= max(slack, 4 * weights.max()) + 1e-6


@given(st.integers(0, 2**31), st.floats(2.2, 7.5))
def test_many_layers_meet_the_mean_within_half_a_per_cent(seed: int, mean: float) -> None:
    rng = np.random.default_rng(seed)
    weights = np.tile([4096.0 * 4096] * 4 + [4096.0 * 11008] * 3, 32)
    rises = np.cumsum(rng.exponential(size=(224, 4)), axis=1)[:, ::-1] * [8, 2, 1, 0.1]
    budget = mean * weights.sum()
    spent = allotted(budget, 0.005 * budget, weights, rises) @ weights
    assert spent == pytest.approx(budget, rel=0.005)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(2.2, 6))
def test_no_choice_that_costs_as_much_is_much_better(seed: int, mean: float) -> None:
    """Along the hull only the last step is not the best there is: at most that one's gain is lost."""
    rng = np.random.default_rng(seed)
    weights = np.full(5, 10.0)
    rises = np.cumsum(np.sort(rng.exponential(size=(5, 4)), axis=1), axis=1)[:, ::-1]
    found = allotted(mean * 50, 50.0, weights, rises)

    def loss(bits: tuple[int, ...]) -> float:
        return float(rises[np.arange(5), np.searchsorted(BITS, bits)].sum())

    affordable = [each for each in product(BITS.tolist(), repeat=5) if sum(each) * 10 <= mean * 50]
    best = min(map(loss, affordable))
    assert loss(tuple(found.tolist())) <= best + np.max(-np.diff(rises, axis=1))


def test_kinds_of_layers_have_the_bits_they_are_given(base: Profiler) -> None:
    plan = planned(base, bits=3, attention_bits=8, down_bits=4)
    wanted = {
        "q_proj": 8,
        "k_proj": 8,
        "v_proj": 8,
        "o_proj": 8,
        "gate_proj": 3,
        "up_proj": 3,
        "down_proj": 4,
    }
    assert bits_of(plan) == [wanted[shape.type] for shape in base.architecture.layers]
    rest = planned(base, bits=3, mlp_bits=2)
    assert bits_of(rest) == [2 if shape.group == "mlp" else 3 for shape in base.architecture.layers]
    assert planned(base, bits=3, attention_bits=3).hash == planned(base, bits=3).hash


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq"])
@pytest.mark.parametrize("mean", [2, 2.5, 3.0, 3.3, 5, 8])
def test_the_mean_is_met_as_nearly_as_the_layers_allow(method: str, mean: float, base: Profiler) -> None:
    plan = planned(base, method, allocation="sensitivity", mean_bits=mean)
    smallest = min(shape.parameters for shape in base.architecture.layers)
    step = smallest / base.architecture.linear_parameters
    assert mean_bits(plan) == pytest.approx(mean, abs=max(0.005 * mean, step / 2))


def test_without_a_mean_it_is_that_of_the_bits(base: Profiler) -> None:
    assert mean_bits(planned(base, allocation="sensitivity", bits=3)) == pytest.approx(3, rel=0.005)


def test_kinds_with_bits_of_their_own_are_left_alone_and_count(base: Profiler) -> None:
    plan = planned(base, allocation="sensitivity", mean_bits=4, attention_bits=2)
    found = dict(zip([shape.name for shape in base.architecture.layers], bits_of(plan), strict=True))
    assert {bits for name, bits in found.items() if "attn" in name} == {2}
    assert mean_bits(plan) == pytest.approx(4, rel=0.01)
    with pytest.raises(Unsupported, match=r"mean_bits=2[\s\S]*others would need[\s\S]*attention_bits"):
        planned(base, allocation="sensitivity", mean_bits=2, attention_bits=8)
    every = planned(base, allocation="sensitivity", mean_bits=4, attention_bits=2, mlp_bits=3)
    assert set(bits_of(every)) == {2, 3}


def test_factors_are_judged_by_what_their_dense_layer_bears(base: Profiler) -> None:
    more = {"factorise": "svd", "factorise.keep_ratio": 0.5}
    plan = planned(base, "gptq", more, allocation="sensitivity", mean_bits=3.5, group_size=0)
    assert mean_bits(plan) == pytest.approx(3.5, abs=0.04)
    assert len(set(bits_of(plan))) > 1


def test_a_mean_without_a_choice_is_refused(base: Profiler) -> None:
    with pytest.raises(Unsupported, match="mean_bits is for allocation: sensitivity"):
        planned(base, mean_bits=3)


@pytest.mark.parametrize(
    ("knob", "value"),
    [("mean_bits", 1.5), ("mean_bits", 9), ("attention_bits", 5), ("allocation", "spectral")],
)
def test_a_space_with_knobs_out_of_range_is_refused(knob: str, value: Any) -> None:
    space = {"quantize": Choice(choices=("gptq",)), f"quantize.{knob}": Choice(choices=(value,))}
    with pytest.raises(InvalidStudy, match=knob):
        check_space(SearchSpace(parameters=space))


def test_a_space_may_draw_the_mean() -> None:
    chosen = Choice(choices=("sensitivity",))
    mean = Float(low=2.5, high=6)
    check_space(
        SearchSpace(
            parameters={
                "quantize": Choice(choices=("rtn", "gptq")),
                "quantize.allocation": chosen,
                "quantize.mean_bits": mean,
            }
        )
    )


def test_only_a_space_that_may_allot_has_the_sensitivities_measured() -> None:
    def space(*allocations: str) -> SearchSpace:
        methods = Choice(choices=("none", "rtn", "awq"))
        return SearchSpace(
            parameters={"quantize": methods, "quantize.allocation": Choice(choices=allocations)}
        )

    assert preparations_for(space("uniform")) == ()
    found = preparations_for(space("uniform", "sensitivity"))
    assert set(found) == {RoundNearest().sensitivity(64), Awq().sensitivity(64)}


@pytest.mark.parametrize(
    ("asked", "measured"), [(0, 0), (1, 32), (16, 32), (45, 32), (46, 64), (90, 64), (91, 128), (4096, 128)]
)
def test_group_sizes_are_judged_by_the_nearest_typical_one(asked: int, measured: int) -> None:
    assert typical_group(asked) == measured


@pytest.mark.parametrize(
    ("sizes", "measured"),
    [
        (Choice(choices=(32, 128)), {32, 128}),
        (Int(low=100, high=160, step=4), {128}),
        (Int(low=8, high=4096), {0, 32, 64, 128}),
    ],
)
def test_what_is_measured_covers_every_group_size_of_a_space(sizes: Choice | Int, measured: set[int]) -> None:
    parameters = {
        "quantize": Choice(choices=("gptq",)),
        "quantize.allocation": Choice(choices=("sensitivity",)),
        "quantize.group_size": sizes,
    }
    assert set(preparations_for(SearchSpace(parameters=parameters))) == set(map(Gptq().sensitivity, measured))


def test_preparations_of_different_methods_have_names_of_their_own() -> None:
    found = [method().sensitivity(64) for method in (RoundNearest, Gptq, Awq)]
    assert len({each.name for each in found}) == 3
    assert [each.format.key for each in found[0].quantizers] == ["2g64", "3g64", "4g64", "8g64"]


@pytest.mark.parametrize("method", [RoundNearest, Gptq, Awq])
def test_what_is_measured_falls_with_the_bits_and_leaves_the_model_alone(
    method: type[RoundNearest], base: Profiler, llama: DenseModel
) -> None:
    before = small.logits(llama.module)
    measured = method().sensitivity(16)
    rises = base.profile([measured]).table(measured.name)
    assert rises.shape == (len(base.architecture.layers), len(BITS))
    assert (np.diff(rises, axis=1) < 0).all()
    assert (rises > 0).all()
    assert torch.equal(small.logits(llama.module), before)


def test_a_layer_that_hardly_counts_any_more_gets_the_fewest_bits(base: Profiler) -> None:
    before = bits_of(planned(base, allocation="sensitivity", mean_bits=3))
    most = int(np.argmax(before))
    assert before[most] > 3
    dense = small.dense_model("llama", digest="test-llama-one-layer-silent")
    dense.module.get_parameter(f"{base.architecture.layers[most].name}.weight").mul_(1e-3)
    other = Profiler(dense, small.corpus(), small.CONTEXT)
    assert bits_of(planned(other, allocation="sensitivity", mean_bits=3))[most] == 2
