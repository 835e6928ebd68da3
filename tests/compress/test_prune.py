"""Heads and MLP units removed from models of every known family: what goes, and what is left."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from hpo.compress.applying import compressed, healed
from hpo.compress.layers import FewerHeads, NarrowAttention, NarrowLinear
from hpo.compress.modegpt_parts import Attention, Mlp
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.prune_cut import COUNTED, cut_heads, cut_units
from hpo.compress.prune_plan import Trimmed
from hpo.compress.prune_scores import Metric, PruneScores
from hpo.compress.surgery import bias_of, count_macs, shared_copy, weight_of
from hpo.deliver import remote_code
from hpo.deliver.export import merged
from hpo.errors import Unsupported
from hpo.measure.memory import Held
from hpo.models.dense import DenseModel
from hpo.models.reference import CONTEXT
from hpo.models.text import Role, read_corpus
from hpo.study import TextSource
from tests.compress import small
from tests.compress.narrowing import family, profiler, relative_error
from tests.compress.pruning import (
    FAMILIES,
    candidate,
    generated,
    parts_of,
    pruned,
    silence,
    silent,
    written_by_full_forwards,
)

METRICS: tuple[Metric, ...] = ("wanda", "fluctuation", "fluctuation_squared", "taylor_first", "taylor_second")


@pytest.mark.parametrize("name", FAMILIES)
def test_removing_what_is_zero_everywhere_changes_nothing(name: str) -> None:
    """Exact up to the order of sums, which depends on how many terms there are: looked at in float64."""
    dense = family(name)
    counted = silent(dense)
    dense.module.double()
    model = shared_copy(dense.module)
    for part in parts_of(dense):
        kept = torch.tensor(counted[part.path])
        if isinstance(part, Mlp):
            cut_units(model, part, kept)
        else:
            cut_heads(model, part, kept)
    assert relative_error(model.eval(), small.logits(dense.module)) < 1e-13
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in dense.module.parameters())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", ["llama", "gpt2", "neox"])
def test_every_metric_puts_what_is_zero_last(name: str, metric: Metric) -> None:
    dense = family(name, f"silent-{name}")
    counted = silent(dense)
    base = profiler(dense)
    pieces = {
        piece.name: piece
        for piece in PruneScores(metric).prepare(dense.module, base.architecture, base.statistics)
    }
    for path, kept in counted.items():
        order = pieces[path].tensors["order"].tolist()
        assert set(order[: len(kept)]) == set(kept)
        (worth,) = (v for k, v in pieces[path].arrays.items() if k in (f"{path}@units", f"{path}@heads"))
        assert worth.dtype == torch.float64
        assert worth[order].tolist() == sorted(worth.tolist(), reverse=True)


def test_salience_of_a_unit_is_that_of_all_weights_that_go_with_it() -> None:
    dense = family("llama")
    base = profiler(dense)
    shapes = {layer.name: layer for layer in base.architecture.layers}
    pieces = {
        piece.name: piece
        for piece in PruneScores("taylor_first").prepare(dense.module, base.architecture, base.statistics)
    }
    mlp, at = "model.layers.1.mlp", "model.layers.1.self_attn"
    rows = {name: base.statistics.taylor(shapes[name], "first")[0] for name in shapes}
    columns = {name: base.statistics.taylor(shapes[name], "first")[1] for name in shapes}
    unit = rows[f"{mlp}.gate_proj"][5] + rows[f"{mlp}.up_proj"][5] + columns[f"{mlp}.down_proj"][5]
    assert float(pieces[mlp].arrays[f"{mlp}@units"][5]) == pytest.approx(float(unit))
    # The second of two groups: query heads 2 and 3 of eight dimensions, key and value head 1.
    group = rows[f"{at}.q_proj"][16:].sum() + columns[f"{at}.o_proj"][16:].sum()
    group += rows[f"{at}.k_proj"][8:].sum() + rows[f"{at}.v_proj"][8:].sum()
    assert float(pieces[at].arrays[f"{at}@heads"][1]) == pytest.approx(float(group))


@pytest.mark.parametrize("name", FAMILIES)
def test_what_the_plan_keeps_is_what_the_model_has(name: str) -> None:
    dense = family(name)
    plan, model = pruned(dense, "wanda_sp", keep_ratio=0.7)
    for shape, layer in plan.named():
        assert tuple(weight_of(model.get_submodule(shape.name)).shape) == layer.matrices[0]
    assert Held.by(model).parameters == plan.parameters
    assert count_macs(model, small.CONTEXT) == plan.prefill_macs
    store = profiler(dense).store
    for part in parts_of(dense):
        reads = next(layer for shape, layer in plan.named() if shape.name == part.output)
        if isinstance(part, Mlp) and isinstance(reads, Trimmed):
            order = store.load("prune-wanda", part.path)["order"]
            kept = order[: reads.cut.kept[1]].sort().values
            expected = weight_of(dense.module.get_submodule(part.output))[:, kept]
            assert torch.equal(weight_of(model.get_submodule(part.output)), expected)


def test_a_key_head_goes_with_all_query_heads_that_share_it() -> None:
    dense = family("qwen2")  # four query heads of eight dimensions over two key heads, with biases
    (part,) = (p for p in parts_of(dense) if p.path == "model.layers.0.self_attn")
    assert isinstance(part, Attention)
    model = shared_copy(dense.module)
    cut_heads(model, part, torch.tensor([1]))
    old: Any = dense.module.get_submodule(part.path)
    new: Any = model.get_submodule(part.path)
    for layer, rows in (("q_proj", 16), ("k_proj", 8), ("v_proj", 8)):
        assert torch.equal(getattr(new, layer).weight, getattr(old, layer).weight[rows:])
        assert torch.equal(getattr(new, layer).bias, getattr(old, layer).bias[rows:])
    assert torch.equal(new.o_proj.weight, old.o_proj.weight[:, 16:])
    assert new.o_proj.bias is None


def test_one_by_one_heads_that_share_keys_are_refused_before_anything_runs() -> None:
    with pytest.raises(Unsupported, match=r"heads=single[\s\S]*2 share a key[\s\S]*heads: group"):
        pruned(family("llama"), "wanda_sp", keep_ratio=0.7, heads="single")
    plan, _ = pruned(family("gpt2"), "wanda_sp", keep_ratio=0.7, heads="single")
    assert plan.linear_parameters < plan.architecture.linear_parameters


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("structure", ["uniform", "global"])
def test_generation_with_a_cache_says_what_full_forwards_say(name: str, structure: str) -> None:
    _, model = pruned(family(name), "wanda_sp", keep_ratio=0.7, structure=structure)
    assert generated(model, cached=True) == generated(model, cached=False) == written_by_full_forwards(model)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_way_to_compute_attention_gives_the_same(name: str, implementation: str) -> None:
    dense = family(name)
    _, model = pruned(dense, "wanda_sp", keep_ratio=0.7)
    expected = small.logits(model)
    typed: Any = model
    typed.config._attn_implementation = implementation
    assert relative_error(model, expected) < 1e-5


@pytest.mark.parametrize("name", [*FAMILIES, "phi3"])
def test_the_dense_form_computes_the_same(name: str) -> None:
    dense = family(name)
    _, model = pruned(dense, "wanda_sp", keep_ratio=0.7)
    whole = merged(model, dense.module)
    assert relative_error(whole, small.logits(model)) < 1e-5
    before, after = dense.module.state_dict(), whole.state_dict()
    assert {key: value.shape for key, value in after.items()} == {k: v.shape for k, v in before.items()}
    assert type(whole) is type(dense.module)
    assert not any(isinstance(m, NarrowLinear | NarrowAttention) for m in whole.modules())


@pytest.mark.parametrize("name", [*FAMILIES, "phi3"])
def test_so_does_that_of_what_later_stages_make_of_it(name: str) -> None:
    dense = family(name)
    more = {"factorise": "svd", "factorise.keep_ratio": 0.7, "quantize": "rtn", "quantize.group_size": 0}
    plan, model = pruned(dense, "wanda_sp", {**more, "quantize.bits": 8}, keep_ratio=0.75)
    assert Held.by(model).parameters == plan.parameters
    assert relative_error(merged(model, dense.module), small.logits(model)) < 1e-5


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_the_exported_code_rebuilds_the_model_from_its_sizes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = family(name)
    _, model = pruned(dense, "flap", keep_ratio=0.7)
    code = ModuleType("modeling_pruned_test")
    monkeypatch.setitem(sys.modules, code.__name__, code)
    exec(remote_code.source(model, dense.module), code.__dict__)
    settings, base = remote_code.configuration(model, "a plan"), dense.module
    assert isinstance(base, PreTrainedModel)
    config_type, model_type = (
        settings["auto_map"][key].split(".")[1] for key in ("AutoConfig", "AutoModelForCausalLM")
    )
    given = {k: v for k, v in base.config.to_dict().items() if k != "model_type"}
    config = getattr(code, config_type)(**{**given, "compression": settings["compression"]})
    fresh = getattr(code, model_type)(config)
    missing, unexpected = fresh.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected
    assert all("rotary" in key for key in missing)
    assert relative_error(fresh.eval(), small.logits(model)) < 1e-5


def test_only_classes_that_do_not_read_heads_off_shapes_get_another_attention() -> None:
    for name in FAMILIES:
        _, model = pruned(family(name), "wanda_sp", keep_ratio=0.7)
        found = sum(isinstance(module, FewerHeads) for module in model.modules())
        assert found == (2 if name in ("gpt2", "opt") else 0)
    assert COUNTED == ("OPTAttention", "GPT2Attention")


def test_beside_an_attention_that_nobody_knows_the_mlp_is_cut_alone() -> None:
    dense = family("phi3")  # whose MLP makes gates and all else in one layer
    plan, model = pruned(dense, "flap", keep_ratio=0.75)
    assert sum(isinstance(m, NarrowLinear) for m in model.modules()) == 4
    assert count_macs(model, small.CONTEXT) == plan.prefill_macs
    sizes = {row.layer: row.size for row in plan.records()}
    assert sizes["model.layers.1.self_attn.qkv_proj"] == "as it is: Phi3Attention cannot be cut"
    with pytest.raises(Unsupported, match="Phi3Attention cannot be cut"):
        pruned(dense, "flap", keep_ratio=0.4)


def test_healing_trains_what_was_cut_and_nothing_that_is_shared() -> None:
    dense = family("llama")
    _, model = pruned(dense, "wanda_sp", keep_ratio=0.6)
    theirs = {parameter.data_ptr() for parameter in dense.module.parameters()}
    cut = [module for module in model.modules() if isinstance(module, NarrowLinear)]
    assert len(cut) == 2 * 7
    assert not theirs & {factor.data_ptr() for module in cut for factor in module.factors()}


@pytest.mark.parametrize("heal", ["fine_tune", "lora"])
def test_a_healed_model_keeps_its_sizes_and_predicts_its_text_better(
    heal: str, reference: DenseModel
) -> None:
    text = read_corpus(
        TextSource(reference=True, tokens=4096), Role.CALIBRATION, reference.tokenizer, CONTEXT
    )
    base = Profiler(reference, text, CONTEXT)
    more = {"heal": heal, "heal.steps": 8, "heal.learning_rate": 1e-3}
    asked = candidate("flap", more, keep_ratio=0.5)
    plan = plan_of(base.profile(preparations_of(asked)), asked)
    model = compressed(base, asked, plan)
    outcome = healed(base, asked, plan, model)
    assert outcome is not None
    assert outcome.after < outcome.before
    assert Held.by(model).parameters == plan.parameters


def test_half_precision_stays_half() -> None:
    dense = family("qwen2", "prune-bf16")
    dense.module.bfloat16()
    plan, model = pruned(dense, "flap", keep_ratio=0.7)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    held = Held.by(model)
    assert (held.parameters, held.parameter_bytes) == (plan.parameters, plan.weight_bytes)


def test_a_silent_unit_of_a_fused_layer_is_found_in_both_halves() -> None:
    dense = family("phi3")
    part = next(p for p in parts_of(dense) if isinstance(p, Mlp))
    silence(dense, part, [3])
    fused = dense.module.get_submodule(part.inputs[0])
    assert not weight_of(fused)[[3, 3 + part.width]].any()
    model = shared_copy(dense.module)
    cut_units(model, part, torch.tensor([n for n in range(part.width) if n != 3]))
    assert relative_error(model, small.logits(dense.module)) < 1e-5


def test_a_layer_whose_section_loses_nothing_is_the_dense_one() -> None:
    dense = family("llama")
    _, model = pruned(dense, "wanda_sp", keep_ratio=0.8, protect_first=1)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "layers.0" in name:
            assert not isinstance(module, NarrowLinear)
            assert module.weight is dense.module.get_submodule(name).weight
            assert bias_of(module) is None
