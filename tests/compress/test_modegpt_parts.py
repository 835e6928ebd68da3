"""What is chosen, what is left alone, and what export and healing make of narrower models."""

import sys
from statistics import mean
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hpo.compress.layers.narrow import NarrowAttention, NarrowLinear
from hpo.compress.modegpt_cut import cut_attention, cut_mlp
from hpo.compress.modegpt_parts import Attention, Mlp, anatomy
from hpo.compress.modegpt_sensitivity import NarrowingSensitivity
from hpo.compress.profiling import Profiler
from hpo.compress.surgery import count_macs, shared_copy
from hpo.deliver import remote_code
from hpo.deliver.export import merged
from hpo.errors import NonFinite, Unsupported
from hpo.measure.memory import Held
from hpo.models.dense import DenseModel
from hpo.models.reference import CONTEXT
from hpo.models.text import Corpus, Role, read_corpus
from hpo.study import TextSource
from tests.compress import small
from tests.compress.narrowing import ORDER, cut_to, family, narrowed, profiler, relative_error, thin_out


@pytest.mark.parametrize("part", ["mlp", "attention"])
def test_what_is_chosen_loses_less_than_what_is_drawn_at_random(part: str, reference: DenseModel) -> None:
    text = read_corpus(
        TextSource(reference=True, tokens=4096), Role.CALIBRATION, reference.tokenizer, CONTEXT
    )
    base = Profiler(reference, text, CONTEXT)
    shapes = {layer.name: layer for layer in base.architecture.layers}
    parts = {part.path: part for part in anatomy(reference.module, base.architecture).parts}
    pieces = list(ORDER.prepare(reference.module, base.architecture, base.statistics))
    expected = _logits(reference.module, text)

    def error(seed: int | None) -> float:
        """Of a third of the MLP or half of the dimensions of heads; chosen without a seed."""
        model = shared_copy(reference.module)
        generator = torch.Generator().manual_seed(seed or 0)
        for piece in pieces:
            cut = parts.get(piece.name)
            tensors = dict(piece.tensors)
            if seed is not None and tensors:
                drawn = torch.rand(tensors["order"].shape, generator=generator)
                tensors["order"] = drawn.argsort(-1)
            if isinstance(cut, Mlp) and part == "mlp":
                gram = base.statistics.gram(shapes[cut.output])
                cut_mlp(model, cut, tensors["order"], cut.width // 3, gram)
            elif isinstance(cut, Attention) and part == "attention":
                gram = base.statistics.gram(shapes[cut.output])
                cut_attention(model, cut, tensors, cut.heads.size // 2, cut.heads.size // 2, gram)
        return float(torch.linalg.norm(_logits(model, text) - expected))

    assert error(None) < 0.95 * mean(error(seed) for seed in range(3))


def _logits(model: nn.Module, text: Corpus) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=torch.stack(text.sequences[:8]), use_cache=False).logits
    return found


@pytest.mark.parametrize("name", ["llama", "gpt2", "neox"])
def test_the_exported_code_rebuilds_the_model_from_its_sizes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = family(name)
    _, model = narrowed(dense, keep_ratio=0.7, query_key=0.8)
    code = ModuleType("modeling_compressed_test")
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
    assert all("rotary" in key or key.endswith((".bias", ".masked_bias")) for key in missing)
    assert relative_error(fresh.eval(), small.logits(model)) < 1e-5


def test_healing_trains_what_was_cut_and_nothing_that_is_shared() -> None:
    dense = family("llama")
    _, model = narrowed(dense, keep_ratio=0.7, query_key=0.5, value=3.0)
    theirs = {parameter.data_ptr() for parameter in dense.module.parameters()}
    modules = [m for m in model.modules() if isinstance(m, NarrowAttention | NarrowLinear)]
    factors = [factor for module in modules for factor in module.factors()]
    assert not theirs & {factor.data_ptr() for factor in factors}
    # Two of four attention layers (values have all their dimensions), three layers of each MLP.
    assert len(factors) == 2 * (2 + 3)


def test_half_precision_is_cut_in_double_and_stays_half() -> None:
    dense = family("qwen2", "narrow-bf16")
    thin_out(dense)
    dense.module.bfloat16()
    model = cut_to(dense, 0.5)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert relative_error(model, small.logits(dense.module)) < 0.1


def test_beside_an_attention_that_nobody_knows_the_mlp_is_cut_alone() -> None:
    dense = family("phi3")  # whose MLP makes gates and all else in one layer
    plan, model = narrowed(dense, keep_ratio=0.7)
    assert not any(isinstance(m, NarrowAttention) for m in model.modules())
    assert sum(isinstance(m, NarrowLinear) for m in model.modules()) == 4
    assert count_macs(model, small.CONTEXT) == plan.prefill_macs
    assert Held.by(model).parameters == plan.parameters
    sizes = {row.layer: row.size for row in plan.records()}
    assert sizes["model.layers.1.self_attn.qkv_proj"] == "as it is: Phi3Attention cannot be cut"
    assert relative_error(merged(model, dense.module), small.logits(model)) < 1e-5
    with pytest.raises(Unsupported, match="Phi3Attention is not known"):
        narrowed(dense, keep_ratio=0.3)


def test_an_mlp_with_a_norm_between_its_layers_is_left_as_it_is() -> None:
    dense = family("llama", "narrow-normed")
    mlp: Any = dense.module.get_submodule("model.layers.0.mlp")
    mlp.norm = nn.LayerNorm(48)
    parts = anatomy(dense.module, profiler(dense).architecture)
    assert [part.path for part in parts.parts if isinstance(part, Mlp)] == ["model.layers.1.mlp"]
    assert parts.unknown["model.layers.0.mlp.up_proj"] == "LlamaMLP"


def test_sensitivity_moves_more_where_less_is_kept() -> None:
    dense = family("llama")
    base = profiler(dense)
    found = {
        key: values
        for piece in NarrowingSensitivity(ORDER).prepare(dense.module, base.architecture, base.statistics)
        for key, values in piece.arrays.items()
    }
    assert len(found) == 2 * 3
    # On random text a random model may gain by being cut.
    least, _, _, most = torch.stack(list(found.values())).abs().sum(0).tolist()
    assert least > most > 0


def test_a_weight_that_is_not_finite_is_refused_by_name() -> None:
    dense = family("llama", "narrow-nan")
    base = profiler(dense)
    architecture, statistics = base.architecture, base.statistics
    statistics.gram(architecture.layers[0])
    with torch.no_grad():
        dense.module.get_parameter("model.layers.1.mlp.down_proj.weight")[0, 0] = float("nan")
    with pytest.raises(NonFinite, match=r"model\.layers\.1\.mlp\.down_proj"):
        list(ORDER.prepare(dense.module, architecture, statistics))
