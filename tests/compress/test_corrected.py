import ast
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpo import registry
from hpo.compress import layers as layer_package
from hpo.compress import splits
from hpo.compress.applying import compressed
from hpo.compress.corrected_plan import Corrected, PackedLowRank
from hpo.compress.correction_math import weighted_error
from hpo.compress.grid import Grid
from hpo.compress.layer_plan import LayerPlan
from hpo.compress.layers import CorrectedLinear, PackedLowRankLinear
from hpo.compress.layers.compressed import CompressedLinear
from hpo.compress.layers.packed import Packed
from hpo.compress.plan import Plan
from hpo.compress.planner import plan_of
from hpo.compress.profile import ModelProfile
from hpo.compress.profiling import Profiler
from hpo.compress.residual import Residual, evened, left_over
from hpo.compress.rounding import RoundToNearest
from hpo.compress.surgery import shared_copy, weight_of
from hpo.errors import Unsupported
from hpo.measure.memory import Held
from hpo.models.dense import DenseModel
from hpo.space import Candidate
from tests.compress import small

EIGHT, FOUR = Grid(8, 32), Grid(4, 32)


def candidate(method: str, knobs: dict[str, Any]) -> Candidate:
    return Candidate.of({"factorise": method, **{f"factorise.{name}": v for name, v in knobs.items()}})


def relative_error(model: nn.Module, dense: DenseModel) -> float:
    expected = small.logits(dense.module)
    return float(torch.linalg.norm(small.logits(model) - expected) / torch.linalg.norm(expected))


def profiler(dense: DenseModel) -> Profiler:
    return Profiler(dense, small.corpus(), small.CONTEXT)


def applied(base: Profiler, method: str, layers: tuple[LayerPlan, ...]) -> nn.Module:
    """Return the model with exactly these layers, whatever knobs would have made of it."""
    grids = {layer.grid for layer in layers if isinstance(layer, Corrected)}
    materials = base.materials([Residual(grid) for grid in grids])
    model = shared_copy(base.dense.module)
    registry.load("method", method)().apply(model, Plan(base.architecture, layers), materials)
    return model.eval()


def full_rank(base: Profiler, **how: Any) -> tuple[LayerPlan, ...]:
    return tuple(
        Corrected(x.out_features, x.in_features, rank=min(x.out_features, x.in_features), **how)
        for x in base.architecture.layers
    )


def gaussian(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def packed(rows: int, columns: int, grid: Grid = FOUR, seed: int = 0) -> Packed:
    return RoundToNearest(grid).quantise(gaussian(rows, columns, seed))


@pytest.mark.parametrize("family", list(small.FAMILIES))
def test_eight_bits_and_a_correction_of_full_rank_reproduce_the_model(family: str) -> None:
    base = profiler(small.dense_model(family))
    model = applied(base, "eora", full_rank(base, grid=EIGHT))
    assert relative_error(model, base.dense) < 1e-4


@pytest.mark.parametrize("iterations", [1, 2])
def test_two_bits_and_a_correction_of_full_rank_reproduce_the_model(iterations: int) -> None:
    base = profiler(small.dense_model("gpt2"))
    model = applied(base, "caldera", full_rank(base, grid=Grid(2), iterations=iterations))
    assert relative_error(model, base.dense) < 1e-4


@pytest.mark.parametrize("family", list(small.FAMILIES))
def test_eight_bits_alone_and_eight_bits_of_both_factors_are_near_the_model(family: str) -> None:
    base = profiler(small.dense_model(family))
    shapes = base.architecture.layers
    plain = tuple(Corrected(x.out_features, x.in_features, EIGHT, 0) for x in shapes)
    ranks = [min(x.out_features, x.in_features) for x in shapes]
    both = tuple(
        PackedLowRank(x.out_features, x.in_features, EIGHT, r, 2) for x, r in zip(shapes, ranks, strict=True)
    )
    assert relative_error(applied(base, "eora", plain), base.dense) < 0.1
    assert relative_error(applied(base, "lplr", both), base.dense) < 0.1


@pytest.mark.parametrize("knobs", [{"rank": 4}, {"rank": 4, "factor_bits": 8}])
def test_a_model_in_half_precision_is_corrected_in_its_own(knobs: dict[str, Any]) -> None:
    dense = small.dense_model("llama", digest="test-llama-bfloat16")
    dense.module.bfloat16()
    base = profiler(dense)
    asked = candidate("eora", {**knobs, "group_size": 32})
    plan = plan_of(base.profile([Residual(FOUR)]), asked)
    model = compressed(base, asked, plan)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    held, before = Held.by(model), Held.by(dense.module)
    assert held.parameters == plan.parameters
    assert held.parameter_bytes + held.buffer_bytes - before.buffer_bytes == plan.weight_bytes
    assert plan.weight_bytes < 0.7 * before.parameter_bytes
    assert torch.isfinite(small.logits(model)).all()


def test_a_correction_is_a_slice_of_what_is_prepared(llama: DenseModel) -> None:
    base = profiler(llama)
    materials = base.materials([Residual(FOUR)])
    shape = base.architecture.layers[0]
    kept = materials.store.load(Residual(FOUR).name, shape.name)
    assert kept["left"].shape[1] == shape.break_even_rank
    plan = Corrected(shape.out_features, shape.in_features, FOUR, 5)
    found = splits.Splits(base.architecture, materials).tensors(shape, plan)
    product = kept["left"][:, :5] @ kept["right"][:5]
    assert torch.allclose(found["left"] @ found["right"], product, atol=1e-4)
    assert torch.equal(found["backbone.codes"], kept["backbone.codes"])


def test_a_layer_is_worked_out_once(llama: DenseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    base = profiler(replace(llama, digest="worked-out-once"))
    layers = full_rank(base, grid=FOUR, iterations=2)
    first = small.logits(applied(base, "caldera", layers))

    def never(*_: Any) -> None:
        raise AssertionError("worked out again")

    monkeypatch.setattr(splits, "split", never)
    assert torch.allclose(small.logits(applied(base, "caldera", layers)), first)


def test_alternation_leaves_less_than_one_correction(llama: DenseModel, profile: ModelProfile) -> None:
    base = profiler(llama)
    left = {}
    for method in ("eora", "caldera"):
        plan = plan_of(profile, candidate(method, {"bits": 2, "group_size": 32, "rank": 6}))
        model = applied(base, method, plan.layers)
        left[method] = [
            weighted_error(
                weight_of(llama.module.get_submodule(shape.name)) - dense_weight(model, shape.name),
                base.statistics.gram(shape),
            )
            for shape in base.architecture.layers
        ]
    assert all(
        after <= before * (1 + 1e-4) for before, after in zip(left["eora"], left["caldera"], strict=True)
    )
    assert sum(left["caldera"]) < 0.95 * sum(left["eora"])


def dense_weight(model: nn.Module, name: str) -> Tensor:
    layer = model.get_submodule(name)
    assert isinstance(layer, CompressedLinear)
    return layer.dense_weight()


def test_the_damage_is_the_relative_error_of_the_outputs(llama: DenseModel, profile: ModelProfile) -> None:
    base = profiler(llama)
    plan = plan_of(profile, candidate("eora", {"rank": 3}))
    model = applied(base, "eora", plan.layers)
    damage = registry.load("method", "eora")().damage(profile, plan.layers)
    for shape, predicted in zip(base.architecture.layers, damage, strict=True):
        W, G = weight_of(llama.module.get_submodule(shape.name)), base.statistics.gram(shape)
        lost = weighted_error(W - dense_weight(model, shape.name), G) / weighted_error(W, G)
        assert predicted == pytest.approx(lost**0.5, rel=1e-2)


@pytest.mark.parametrize("method", ["eora", "caldera", "lplr"])
def test_more_ranks_promise_less_damage(method: str, profile: ModelProfile) -> None:
    damages = []
    for ratio in (0.1, 0.4, 0.7):
        plan = plan_of(profile, candidate(method, {"rank_ratio": ratio}))
        damages.append(registry.load("method", method)().damage(profile, plan.layers))
    assert (damages[0] > damages[1]).all()
    assert (damages[1] > damages[2]).all()
    assert (damages[2] > 0).all()


def test_what_is_left_over_is_worked_by_hand() -> None:
    assert left_over(torch.tensor([4.0, 3.0]), 100.0).tolist() == pytest.approx([0.5, 0.3, 0.0])
    assert left_over(torch.tensor([4.0]), 0.0).tolist() == [1.0, 0.0]  # never above the whole


def test_evened_factors_are_of_equal_length_and_the_same_product() -> None:
    left, right = torch.tensor([[8.0, 0.0], [0.0, 0.0]]), torch.tensor([[2.0, 0.0], [3.0, 4.0]])
    even_left, even_right = evened(left, right)
    assert even_left.tolist() == [[4, 0], [0, 0]]
    assert even_right.tolist() == [[4, 0], [3, 4]]  # a rank that carries nothing is left as it is


@pytest.mark.parametrize("kind", ["numbers", "few bits", "no factors"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_corrected_layer_computes_its_dense_weight(kind: str, bias: bool) -> None:
    left: Tensor | Packed | None = None
    right: Tensor | Packed | None = None
    if kind == "numbers":
        left, right = gaussian(6, 3, 1), gaussian(3, 40, 2)
    elif kind == "few bits":
        left, right = packed(3, 6, seed=1), packed(3, 40, seed=2)
    layer = CorrectedLinear(packed(6, 40), left, right, gaussian(1, 6, 3)[0] if bias else None)
    check_layer(layer, trained=2 if kind == "numbers" else 0)


@pytest.mark.parametrize("bias", [True, False])
def test_packed_factors_compute_their_dense_weight(bias: bool) -> None:
    layer = PackedLowRankLinear(
        packed(3, 6, seed=1), packed(3, 40, seed=2), gaussian(1, 6, 3)[0] if bias else None
    )
    check_layer(layer, trained=0)


def check_layer(layer: CompressedLinear, trained: int) -> None:
    x = gaussian(5, 40, 4)
    expected = x @ layer.dense_weight().T + (0 if layer.bias is None else layer.bias)
    for is_training in (True, False):
        with torch.set_grad_enabled(is_training):
            assert torch.allclose(layer(x), expected, atol=1e-4)
    assert len(layer.factors()) == trained
    other = type(layer).empty(layer.size(), nn.Linear(40, 6))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))
    half = layer.bfloat16()
    assert half(x.bfloat16()).dtype is torch.bfloat16
    assert torch.allclose(half(x.bfloat16()).float(), expected, rtol=0.1, atol=0.5)


def test_healing_trains_the_factors_through_a_frozen_backbone_it_does_not_keep() -> None:
    layer = CorrectedLinear(packed(6, 40), gaussian(6, 3, 1), gaussian(3, 40, 2), None)
    x = gaussian(5, 40, 4).requires_grad_(True)
    for parameter in layer.factors():
        parameter.requires_grad_(True)
    kept: list[tuple[int, ...]] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = layer(x).square().sum()
    found = torch.autograd.grad(loss, [x, *layer.factors()])
    assert not {(6, 40), (40, 6)} & set(kept)

    W = layer.backbone.dequantise()
    left, right = (p.detach().clone().requires_grad_(True) for p in layer.factors())
    expected = torch.autograd.grad((x @ (W + left @ right).T).square().sum(), [x, left, right])
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-2)


def test_conv1d_is_merged_back_as_it_was_stored() -> None:
    dense = small.dense_model("gpt2")
    base = profiler(dense)
    model = applied(base, "eora", full_rank(base, grid=EIGHT))
    name = base.architecture.layers[0].name
    old, layer = dense.module.get_submodule(name), model.get_submodule(name)
    assert isinstance(layer, CorrectedLinear)
    assert torch.allclose(weight_of(layer.as_dense(old)), weight_of(old), atol=1e-4)


def test_layers_of_another_kind_are_refused(llama: DenseModel) -> None:
    base = profiler(llama)
    layers = tuple(PackedLowRank(x.out_features, x.in_features, FOUR, 1) for x in base.architecture.layers)
    with pytest.raises(Unsupported, match="packed_low_rank in a plan of corrected"):
        applied(base, "eora", layers)
    with pytest.raises(Unsupported, match="corrected in a plan of packed"):
        applied(base, "lplr", full_rank(base, grid=FOUR))


@pytest.mark.parametrize(
    ("method", "knobs", "named"),
    [
        ("eora", {}, "exactly one of rank, rank_ratio"),
        ("eora", {"rank": 1, "rank_ratio": 0.1}, "exactly one"),
        ("eora", {"rank": 1, "bits": 5}, "bits"),
        ("eora", {"rank": 1, "iterations": 3}, "iterations"),
        ("caldera", {"rank": 1, "iterations": 0}, "iterations"),
        ("lplr", {"rank": 1, "group_size": 16}, "group_size"),
    ],
)
def test_wrong_knobs_are_refused_by_name(
    method: str, knobs: dict[str, Any], named: str, profile: ModelProfile
) -> None:
    with pytest.raises(Unsupported, match=named):
        plan_of(profile, candidate(method, knobs))


def test_a_space_of_grids_names_each_preparation() -> None:
    method = registry.load("method", "eora")()
    values = {"bits": (2, 3, 4, 5), "group_size": (0, 64), "symmetric": (True,)}
    names = [preparation.name for preparation in method.preparations(values)]
    assert names == [f"residual-{bits}{group}" for bits in (2, 3, 4) for group in ("row", "g64")]


def test_no_name_is_defined_twice_among_the_files_of_layers() -> None:
    """An exported model carries several of them as one file."""
    seen: dict[str, Path] = {}
    for path in sorted(Path(inspect.getfile(layer_package)).parent.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for name in defined(node):
                assert seen.setdefault(name, path) == path, f"{name} is in {seen[name].name} and {path.name}"


def defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
    return [target.id for target in targets if isinstance(target, ast.Name) and target.id != "__all__"]
