import copy
from typing import Any

import pytest
import torch

from hpo.compress.applying import compressed
from hpo.compress.grams import input_grams
from hpo.compress.layers import CorrectedLinear, LowRankLinear, PackedLowRankLinear, SparseLowRankLinear
from hpo.compress.outliers import Outliers, spread_out
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.sparse_math import largest, updated
from hpo.compress.sparse_pattern import Unstructured
from hpo.compress.sparse_plan import Sparse
from hpo.compress.sparsifier import ByMagnitude
from hpo.compress.sparsify import lost
from hpo.compress.surgery import bias_of, weight_of
from hpo.deliver.export import merged
from hpo.errors import NonFinite, Unsupported
from hpo.measure.memory import Held
from hpo.models.dense import DenseModel
from hpo.space import Candidate, Value
from tests.compress import narrowing, small
from tests.compress.changes import QUANTIZE, alone
from tests.compress.thinning import FACTORS, NARROW, asked, made, planned, weights, zeros

METHODS = ("magnitude", "wanda", "sparsegpt")


@pytest.fixture(scope="module")
def base(llama: DenseModel) -> Profiler:
    return Profiler(llama, small.corpus(), small.CONTEXT)


@pytest.mark.parametrize("method", METHODS)
def test_every_layer_has_the_zeros_that_its_plan_says(method: str, base: Profiler) -> None:
    candidate = asked(method, sparsity=0.37)
    plan = planned(base, candidate)
    found = weights(made(base, candidate), plan)
    assert len(found) == len(plan.layers)
    for shape, layer in plan.named():
        assert isinstance(layer, Sparse)
        count = layer.pattern.non_zeros(shape.out_features, shape.in_features)
        assert (found[shape.name] != 0).sum() == count


@pytest.mark.parametrize("method", METHODS)
def test_how_it_is_stored_changes_nothing_but_bytes(method: str, base: Profiler) -> None:
    plans, logits = [], []
    for store in ("dense", "bitmap", "n_m", "csr"):
        candidate = asked(method, pattern="2:4", store=store)
        plans.append(planned(base, candidate))
        logits.append(small.logits(made(base, candidate)))
    assert all(torch.equal(logits[0], other) for other in logits[1:])
    dense = planned(base, Candidate())
    assert plans[0].weight_bytes == dense.weight_bytes
    assert plans[0].parameters == dense.parameters
    assert plans[1].weight_bytes == plans[2].weight_bytes < plans[3].weight_bytes < dense.weight_bytes
    assert len({plan.hash for plan in plans}) == 4


def test_the_plan_says_that_zeros_stored_dense_save_nothing(base: Profiler) -> None:
    records = planned(base, asked(sparsity=0.5)).records()
    assert {record.size for record in records} == {"50 % zeros, stored dense"}
    assert all(record.parameters == record.dense_parameters for record in records)


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_biases_and_transposed_layers_stay_what_they_are(family: str) -> None:
    dense = narrowing.family(family)
    base = narrowing.profiler(dense)
    candidate = asked(sparsity=0.5, store="bitmap")
    plan, model = planned(base, candidate), made(base, candidate)
    found, biased = weights(model, plan), 0
    for shape, _ in plan.named():
        old, new = dense.module.get_submodule(shape.name), model.get_submodule(shape.name)
        mask = largest(weight_of(old).abs(), Unstructured(0.5))
        assert torch.equal(found[shape.name], torch.where(mask, weight_of(old), 0))
        if (bias := bias_of(old)) is not None:
            assert torch.equal(bias, new.get_parameter("bias"))
            biased += 1
    assert biased
    assert torch.equal(small.logits(merged(model, dense.module)), small.logits(model))


def test_the_zeros_are_those_that_the_inputs_say(base: Profiler, llama: DenseModel) -> None:
    """SparseGPT and Wanda read the Gram matrices of the dense model's layers."""
    names = [shape.name for shape in base.architecture.layers]
    grams = input_grams(llama.module, names, small.corpus())
    name = names[-1]
    W = weight_of(llama.module.get_submodule(name))
    candidate = asked("sparsegpt", sparsity=0.5)
    found = weights(made(base, candidate), planned(base, candidate))[name]
    expected = updated(W, grams[name], Unstructured(0.5), 0.01, 128)
    torch.testing.assert_close(found, expected.weight.float(), rtol=1e-3, atol=1e-4)
    by_norm = W.abs() * grams[name].diagonal().sqrt()
    candidate = asked("wanda", sparsity=0.5)
    found = weights(made(base, candidate), planned(base, candidate))[name]
    assert torch.equal(found != 0, largest(by_norm, Unstructured(0.5, by_row=True)))


def test_what_was_worked_out_for_the_dense_model_is_read_again(
    base: Profiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = small.logits(made(base, asked(sparsity=0.41)))

    def thin(*_: Any) -> None:
        raise AssertionError("worked out again")

    monkeypatch.setattr(ByMagnitude, "thin", thin)
    assert torch.equal(small.logits(made(base, asked(sparsity=0.41, store="csr"))), first)


def test_the_cache_keeps_a_bit_a_weight_and_values_only_where_they_change(base: Profiler) -> None:
    sizes = {}
    for method in ("wanda", "sparsegpt"):
        candidate = asked(method, sparsity=0.5, types="down_proj")
        made(base, candidate)
        layer = next(layer for layer in planned(base, candidate).layers if isinstance(layer, Sparse))
        directory = base.store.directory("sparse") / layer.work / "model.layers.0.mlp.down_proj"
        sizes[method] = (directory / "tensors.safetensors").stat().st_size
    bits, values = 32 * 48 // 8, 32 * 48 // 2 * 4
    assert bits < sizes["wanda"] < bits + 200
    assert bits + values < sizes["sparsegpt"] < bits + values + 300


def test_layers_are_chosen_by_type_block_and_group(base: Profiler) -> None:
    def chosen(**knobs: Any) -> set[str]:
        plan = planned(base, asked(sparsity=0.5, **knobs))
        return {shape.name for shape, layer in plan.named() if isinstance(layer, Sparse)}

    assert chosen(types="down_proj", first_block=1) == {"model.layers.1.mlp.down_proj"}
    assert all("mlp" in name for name in chosen(attention=0.0))
    assert chosen(types="attention", last_block=0) == {
        f"model.layers.0.self_attn.{name}_proj" for name in "qkvo"
    }


def test_multipliers_change_the_sparsity_of_a_group(base: Profiler) -> None:
    plan = planned(base, asked(sparsity=0.4, attention=0.5, mlp=2.0))
    found = {
        shape.group: layer.pattern.sparsity for shape, layer in plan.named() if isinstance(layer, Sparse)
    }
    assert found == {"attention": 0.2, "mlp": 0.8}


def test_blocks_with_more_outliers_keep_more_and_the_mean_is_what_was_asked(base: Profiler) -> None:
    candidate = asked("wanda", sparsity=0.6, allocation="owl", spread=0.1, outlier=3)
    profile = base.profile(preparations_of(candidate))
    shares = profile.prepared(Outliers(3).name)["blocks"]
    plan = plan_of(profile, candidate)
    found = {
        shape.block: layer.pattern.sparsity for shape, layer in plan.named() if isinstance(layer, Sparse)
    }
    assert (found[0] < found[1]) == (shares[0] > shares[1])
    assert abs(found[0] - found[1]) == pytest.approx(0.2, abs=2e-4)
    assert (found[0] + found[1]) / 2 == pytest.approx(0.6, abs=1e-4)


def test_sparsities_of_blocks_are_worked_by_hand() -> None:
    # Shares of 1, 3 and 5 % spread over 0, 0.1 and 0.2 that are kept more; their mean by weight is 0.05.
    shares, held = torch.tensor([0.01, 0.03, 0.05]).double(), torch.tensor([3.0, 0.0, 1.0]).double()
    found = spread_out(0.5, shares.numpy(), held.numpy(), 0.1)
    assert found.tolist() == pytest.approx([0.55, 0.45, 0.35])
    assert spread_out(0.5, shares.numpy() * 0, held.numpy(), 0.1).tolist() == [0.5, 0.5, 0.5]


def test_outliers_are_counted_by_hand(llama: DenseModel, base: Profiler) -> None:
    piece = next(iter(Outliers(3).prepare(llama.module, base.architecture, base.statistics)))
    scores = []
    for shape in base.architecture.layers:
        if shape.block == 1:
            W = weight_of(llama.module.get_submodule(shape.name)).double()
            scores.append((W.abs() * base.statistics.gram(shape).double().diagonal().sqrt()).flatten())
    every = torch.cat(scores)
    assert piece.arrays["blocks"][1] == pytest.approx(float((every > 3 * every.mean()).double().mean()))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "give sparsity, or an N:M pattern"),
    ({"sparsity": 1.0}, "sparsify.sparsity"),
    ({"pattern": 124}, "124 is no pattern: YAML reads 2:4 as a number, so write it in quotes"),
    ({"pattern": "4:2"}, r"a pattern of 4:2; allowed: N:M"),
    ({"pattern": "blocks"}, "unknown pattern 'blocks'"),
    ({"pattern": "2:4", "sparsity": 0.6}, "sparsity is 0.6, but 2:4 has 0.5 of its own"),
    ({"pattern": "2:4", "attention": 0.5}, "attention is 0.5, but with 2:4 it is 0 or 1"),
    ({"pattern": "2:4", "allocation": "owl"}, "allocation is owl, but 2:4 is the same everywhere"),
    ({"sparsity": 0.5, "store": "n_m"}, "store: n_m is for N:M patterns"),
    ({"sparsity": 0.5, "store": "coo"}, "sparsify.store"),
    ({"sparsity": 0.6, "mlp": 2.0}, r"a sparsity of 1.2 in mlp layers: 0.6 times sparsify.mlp=2"),
    ({"sparsity": 0.5, "types": "downproj"}, r"no layers of type 'downproj'[\s\S]*down_proj"),
    ({"sparsity": 0.5, "first_block": 2}, r"blocks 2 to 1 of a model whose blocks are 0 to 1"),
    ({"sparsity": 0.5, "attention": 0.0, "mlp": 0.0}, "no layer gets zeros"),
    ({"pattern": "3:32"}, r"model.layers.0.mlp.down_proj: 3:32: groups of 32 do not divide a row of 48"),
    ({"sparsity": 0.5, "damping": 0.1}, "sparsify.damping"),
]


@pytest.mark.parametrize(("knobs", "said"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_makes_no_sense_is_refused_before_anything_runs(
    knobs: dict[str, Any], said: str, base: Profiler
) -> None:
    with pytest.raises(Unsupported, match=said):
        planned(base, asked(**knobs))


def test_a_layer_with_no_matrix_of_its_own_gets_no_zeros(base: Profiler) -> None:
    cores: dict[str, Value] = {"factorise": "mpo", "factorise.bond_dimension": 4}
    with pytest.raises(Unsupported, match="no layer gets zeros: layers are of kind mpo"):
        planned(base, asked(before=cores, sparsity=0.5))


def test_a_rank_that_groups_do_not_divide_is_refused_by_name(base: Profiler) -> None:
    uneven: dict[str, Value] = {"factorise": "svd", "factorise.rank": 6}
    with pytest.raises(Unsupported, match=r"layers.0.self_attn.q_proj: 2:4: groups of 4[\s\S]*rank_multiple"):
        planned(base, asked(before=uneven, pattern="2:4"))
    even = {**uneven, "factorise.rank_multiple": 4}
    assert planned(base, asked(before=even, pattern="2:4")).layers[0].kind == "sparse"


def test_both_factors_get_zeros_and_the_left_one_those_for_what_it_reads(
    base: Profiler, llama: DenseModel
) -> None:
    candidate = asked("wanda", FACTORS, sparsity=0.5, store="bitmap")
    layer = made(base, candidate).get_submodule("model.layers.0.self_attn.q_proj")
    before = made(base, Candidate.of(FACTORS)).get_submodule("model.layers.0.self_attn.q_proj")
    assert isinstance(layer, SparseLowRankLinear)
    assert isinstance(before, LowRankLinear)
    gram = base.statistics.gram(base.architecture.layers[0]).double()
    by_row = Unstructured(0.5, by_row=True)
    right_mask = largest(before.right.abs() * gram.diagonal().sqrt(), by_row)
    right = torch.where(right_mask, before.right, 0).double()
    reads = (right @ gram @ right.T).diagonal().sqrt()
    assert torch.equal(layer.right.whole() != 0, right_mask)
    assert torch.equal(layer.left.whole() != 0, largest(before.left.abs() * reads, by_row))


@pytest.mark.parametrize("before", [FACTORS, NARROW], ids=["factors", "narrow"])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_stored_whole_and_sparse_computes_the_same_after_another_stage(
    before: dict[str, Value], method: str, base: Profiler
) -> None:
    found = [
        small.logits(made(base, asked(method, before, sparsity=0.3, store=store)))
        for store in ("dense", "bitmap", "csr")
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_surgery_hurts_a_layer_less_than_plain_zeros(base: Profiler, llama: DenseModel) -> None:
    shape = base.architecture.layers[-1]
    gram, W = base.statistics.gram(shape).double(), weight_of(llama.module.get_submodule(shape.name)).double()
    errors = []
    for method in METHODS:
        candidate = asked(method, sparsity=0.6)
        lost_OI = weights(made(base, candidate), planned(base, candidate))[shape.name].double() - W
        errors.append(float(((lost_OI @ gram) * lost_OI).sum()))
    magnitude, wanda, sparsegpt = errors
    assert sparsegpt < wanda < magnitude


@pytest.mark.parametrize("bits", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_held_in_half_the_bytes(bits: torch.dtype) -> None:
    dense = small.dense_model("llama", digest=f"test-{bits}")
    dense.module.to(bits)
    base = Profiler(dense, small.corpus(), small.CONTEXT)
    for store in ("dense", "bitmap", "csr"):
        candidate = asked("sparsegpt", sparsity=0.8, store=store)
        plan, model = planned(base, candidate), made(base, candidate)
        held, before = Held.by(model), Held.by(dense.module)
        assert held.parameter_bytes + held.buffer_bytes - before.buffer_bytes == plan.weight_bytes
        assert held.parameters == plan.parameters
        assert torch.isfinite(small.logits(model)).all()


def test_a_model_cast_to_another_precision_keeps_its_places(base: Profiler) -> None:
    model = copy.deepcopy(made(base, asked(sparsity=0.5, store="csr")))
    before = small.logits(model)
    assert (small.logits(model.bfloat16()).float() - before).norm() < 0.05 * before.norm()


@pytest.mark.parametrize("before", [{}, FACTORS, NARROW], ids=["dense", "factors", "narrow"])
@pytest.mark.parametrize("store", ["dense", "bitmap"])
def test_zeros_stay_zero_in_few_bits(before: dict[str, Value], store: str, base: Profiler) -> None:
    first = asked("wanda", before, sparsity=0.5, store=store)
    second = Candidate.of({**dict(first.items), "quantize": "rtn", "quantize.group_size": 0})
    if before == FACTORS and store == "bitmap":
        with pytest.raises(Unsupported, match=r"no layer has a matrix left .*: all are of kind sparse"):
            planned(base, second)
        return
    before_bits, after = made(base, first), made(base, second)
    for name, mask in zeros(before_bits).items():
        layer, _, side = name.partition("_proj.")
        module = after.get_submodule(f"{layer}_proj" if side else name)
        if isinstance(module, PackedLowRankLinear):
            found = module.left.dequantise().T if side == "left" else module.right.dequantise()
        else:
            assert isinstance(module, CorrectedLinear)
            found = module.dense_weight()
        assert mask.any()
        assert (found[mask] == 0).all()
    logits = small.logits(before_bits)
    assert (small.logits(after) - logits).norm() < 0.5 * logits.norm()


@pytest.mark.parametrize("store", ["dense", "bitmap"])
@pytest.mark.parametrize("method", QUANTIZE)
def test_every_quantizer_holds_what_the_plan_says_of_weights_with_zeros(
    method: str, store: str, base: Profiler, llama: DenseModel
) -> None:
    values = alone("quantize", method, QUANTIZE[method][0])
    candidate = asked("wanda", values, sparsity=0.5, store=store)
    if method == "int8" and store == "bitmap":
        with pytest.raises(Unsupported, match="a product of integers takes the matrix with its zeros"):
            planned(base, candidate)
        return
    plan, model = planned(base, candidate), made(base, candidate)
    held, dense = Held.by(model), Held.by(llama.module)
    assert held.parameters == plan.parameters
    assert held.parameter_bytes + held.buffer_bytes - dense.buffer_bytes == plan.weight_bytes
    if store == "bitmap":
        for module in model.modules():
            if isinstance(module, CorrectedLinear):
                weight = module.dense_weight()
                assert (weight == 0).sum() >= weight.numel() // 2


def test_few_bits_without_zeros_take_fewer_bytes(base: Profiler) -> None:
    rounded: dict[str, Value] = {"quantize": "rtn", "quantize.group_size": 16}
    sizes = [
        planned(base, asked(before=rounded, sparsity=0.7, store=store)).weight_bytes
        for store in ("dense", "bitmap")
    ]
    alone = planned(base, Candidate.of(rounded)).weight_bytes
    assert sizes[1] < sizes[0] == alone


def test_a_weight_that_is_not_finite_is_refused() -> None:
    dense = small.dense_model("llama", digest="test-broken-sparsify")
    base = Profiler(dense, small.corpus(), small.CONTEXT)
    candidate = asked(sparsity=0.5)
    plan = planned(base, candidate)
    with torch.no_grad():
        dense.module.get_parameter("model.layers.1.mlp.up_proj.weight")[0, 0] = float("nan")
    with pytest.raises(NonFinite, match="a weight or an input is NaN"):
        compressed(base, candidate, plan)


def test_damage_grows_with_the_sparsity() -> None:
    found = [lost(sparsity) for sparsity in (0.0, 0.25, 0.5, 0.75, 0.9999)]
    assert found == sorted(found)
    assert found[0] == 0
    assert found[-1] == pytest.approx(1.0, abs=0.01)
    # Half of Gaussian weights hold 7 % of their energy.
    assert found[2] ** 2 == pytest.approx(0.0713, abs=1e-3)
