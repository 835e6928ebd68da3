"""FLAP: what hardly fluctuates goes, and its mean stays as a bias."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpo.compress.modegpt_parts import Mlp
from hpo.compress.prune_math import fluctuation_scores, standardised
from hpo.compress.prune_plan import Trimmed
from hpo.compress.prune_scores import Metric, PruneScores
from hpo.compress.surgery import bias_of, weight_of
from hpo.errors import NonFinite, Unsupported
from hpo.models.dense import DenseModel
from tests.compress import small
from tests.compress.narrowing import family, profiler, relative_error
from tests.compress.pruning import parts_of, pruned

CONSTANT = 40
"""Units of each MLP, of 64, that put out the same for every token."""


def with_constant_units() -> DenseModel:
    """Return an OPT of whose MLP units most are as large as they are constant."""
    dense = family("opt", "opt-constant")
    with torch.no_grad():
        for part in parts_of(dense):
            if isinstance(part, Mlp):
                layer = dense.module.get_submodule(part.inputs[0])
                weight_of(layer)[:CONSTANT] = 0
                bias = bias_of(layer)
                assert bias is not None
                bias[:CONSTANT] = 10.0
    return dense


def test_what_never_changes_is_removed_without_any_loss() -> None:
    dense = with_constant_units()
    expected = small.logits(dense.module)
    even: dict[str, Any] = {"keep_ratio": 0.75, "structure": "uniform", "attention": 10.0}  # units go alone
    plan, model = pruned(dense, "flap", **even)
    units = [layer.cut.kept[1] for layer in plan.layers if isinstance(layer, Trimmed)]
    assert len(units) == 2 * 2
    assert 64 - CONSTANT <= min(units) <= max(units) < 40
    assert relative_error(model, expected) < 1e-5
    _, careless = pruned(dense, "flap", compensate=False, **even)
    _, wanda = pruned(dense, "wanda_sp", **even)
    assert relative_error(careless, expected) > 0.1
    assert relative_error(wanda, expected) > 0.01


def outputs_of(model: nn.Module, name: str) -> Tensor:
    """Return what a layer puts out over the calibration text, (N, O) float64."""
    found: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(
        lambda _m, _a, out: found.append(out[0].double())
    )
    with torch.no_grad():
        for sequence in small.corpus().sequences:
            model(input_ids=sequence[None], use_cache=False)
    handle.remove()
    return torch.cat(found)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "neox"])
def test_the_mean_output_of_a_layer_stays_though_heads_are_gone(name: str) -> None:
    dense = family(name)
    part = next(p for p in parts_of(dense) if not isinstance(p, Mlp))  # of the first block
    _, model = pruned(dense, "flap", keep_ratio=0.6, structure="uniform")
    assert (
        weight_of(model.get_submodule(part.output)).shape[1]
        < weight_of(dense.module.get_submodule(part.output)).shape[1]
    )
    before, after = outputs_of(dense.module, part.output), outputs_of(model, part.output)
    assert torch.allclose(before.mean(0), after.mean(0), atol=1e-5)
    assert not torch.allclose(before, after, atol=1e-2)
    _, without = pruned(dense, "flap", keep_ratio=0.6, structure="uniform", compensate=False)
    assert not torch.allclose(before.mean(0), outputs_of(without, part.output).mean(0), atol=1e-3)


@pytest.mark.parametrize("metric", ["fluctuation", "fluctuation_squared"])
def test_levels_are_standard_scores_of_channels_averaged_over_a_head(metric: Metric) -> None:
    dense = family("llama")
    base = profiler(dense)
    shapes = {layer.name: layer for layer in base.architecture.layers}
    pieces = {
        piece.name: piece.arrays
        for piece in PruneScores(metric).prepare(dense.module, base.architecture, base.statistics)
    }
    at, mlp = "model.layers.0.self_attn", "model.layers.0.mlp"
    scores = {}
    for name in (f"{at}.o_proj", f"{mlp}.down_proj"):
        weight = dense.module.get_parameter(f"{name}.weight")
        scores[name] = fluctuation_scores(weight, base.statistics.moments(shapes[name])[1])
    channels = scores[f"{at}.o_proj"]
    if metric == "fluctuation_squared":
        channels = channels.square()
    # Each of two key heads is read in the 16 columns of two query heads.
    assert torch.allclose(pieces[at][f"{at}@heads"], channels.view(2, 16).sum(1))
    assert torch.allclose(pieces[at][f"{at}@heads.level"], standardised(channels).view(2, 16).mean(1))
    units = scores[f"{mlp}.down_proj"]
    assert torch.allclose(pieces[mlp][f"{mlp}@units"], units)
    assert torch.allclose(pieces[mlp][f"{mlp}@units.level"], standardised(units))


def test_output_layers_gain_a_bias_where_they_had_none_and_only_there() -> None:
    plan, model = pruned(family("llama"), "flap", keep_ratio=0.6, structure="uniform")
    for shape, layer in plan.named():
        bias = bias_of(model.get_submodule(shape.name))
        reads = shape.type in ("o_proj", "down_proj")
        assert (bias is not None) == reads
        rows, columns = layer.matrices[0]
        assert layer.costs.parameters == rows * columns + (rows if reads else 0)


def test_what_is_not_finite_is_refused_by_name() -> None:
    dense = family("llama", "flap-nan")
    base = profiler(dense)
    architecture, statistics = base.architecture, base.statistics
    with torch.no_grad():
        dense.module.get_parameter("model.layers.1.mlp.up_proj.weight")[0, 0] = float("nan")
    with pytest.raises(NonFinite, match=r"an input of model\.layers\.1\.mlp\.down_proj"):
        list(PruneScores("fluctuation").prepare(dense.module, architecture, statistics))


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"head_scores": "cubed"}, "prune.head_scores"),
        ({"structure": "UL-UM"}, "prune.structure"),
        ({"order": "second"}, "prune.order"),
        ({"keep_ratio": 1.0}, "prune.keep_ratio"),
        ({"floor": -0.1}, "prune.floor"),
    ],
)
def test_knobs_out_of_range_are_refused_by_name(knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(Unsupported, match=said):
        pruned(family("llama"), "flap", **{"keep_ratio": 0.6, **knobs})
