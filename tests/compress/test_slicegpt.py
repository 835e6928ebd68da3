"""Narrower residual streams: nothing changes at full width; caches, healing, other stages, refusals."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hpo.compress.applying import compressed, healed
from hpo.compress.layers import NarrowEmbedding, NarrowLinear, SlicedBlock, SlicedNorm
from hpo.compress.profiling import Profiler
from hpo.compress.slicegpt import SliceGpt
from hpo.compress.slicegpt_bases import SlicedBases
from hpo.compress.slicegpt_plan import Rotations
from hpo.compress.surgery import linear_layers
from hpo.compress.treatment import factor_parameters
from hpo.deliver.export import merged
from hpo.errors import NonFinite, Unsupported
from hpo.measure.memory import Held
from hpo.space import Candidate, Value
from tests.compress import small
from tests.compress.healing import counting, heal, held_out_loss, patient, taught
from tests.compress.narrowing import profiler, relative_error
from tests.compress.slicing import (
    ROTATIONS,
    WIDTH,
    at_width,
    candidate,
    check_counts,
    in_half,
    model_of,
    narrowed,
    planned,
)

# The function


@pytest.mark.parametrize("rotations", ROTATIONS)
@pytest.mark.parametrize("name", ["llama", "tied", "biased", "qwen2", "mistral"])
def test_at_full_width_the_logits_are_the_dense_ones(name: str, rotations: Rotations) -> None:
    dense = model_of(name)
    expected = small.logits(dense.module)
    model = at_width(dense, WIDTH, rotations)
    assert relative_error(model, expected) < 1e-4
    assert torch.equal(small.logits(dense.module), expected)


@pytest.mark.parametrize("rotations", ROTATIONS)
def test_a_stream_that_fills_half_its_width_is_reproduced_at_that_half(rotations: Rotations) -> None:
    dense = model_of("llama", "slicegpt-in-half")
    in_half(dense)
    plan, model = narrowed(dense, keep_ratio=0.5, rotations=rotations)
    assert relative_error(model, small.logits(dense.module)) < 1e-4
    profile = profiler(dense).profile([SlicedBases(rotations)])
    assert SliceGpt().damage(profile, plan.layers).max() < 1e-3


def test_a_norm_without_scale_sees_neither_the_basis_nor_what_was_sliced_off_of_zeros() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 8, generator=generator)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    norm = SlicedNorm(8, 1e-5)
    assert torch.allclose(norm(x), nn.functional.rms_norm(x, (8,), eps=1e-5), atol=1e-6)
    assert torch.allclose(norm(x @ turn), norm(x) @ turn, atol=1e-6)
    padded = torch.cat([x[:, :5], torch.zeros(3, 3)], dim=1)
    assert torch.allclose(norm(x[:, :5]), norm(padded)[:, :5], atol=1e-7)


@pytest.mark.parametrize("rotations", ROTATIONS)
def test_generation_with_a_cache_says_what_it_says_without(rotations: Rotations) -> None:
    _, sliced = narrowed(model_of("qwen2"), keep_ratio=0.75, rotations=rotations)
    model: Any = sliced
    ids = small.corpus(1, seed=4).sequences[0][None, :8]
    runs = [
        model.generate(ids, max_new_tokens=8, do_sample=False, use_cache=cached, pad_token_id=0)
        for cached in (True, False)
    ]
    assert runs[0].shape == (1, 16)
    assert torch.equal(*runs)


def test_layers_keep_their_paths_and_classes_of_their_own() -> None:
    dense = model_of("llama")
    _, model = narrowed(dense, keep_ratio=0.75)
    before, after = ([name for name, _ in linear_layers(x)] for x in (dense.module, model))
    assert after == before
    assert all(isinstance(layer, NarrowLinear) for _, layer in linear_layers(model))
    assert isinstance(model.get_submodule("model.layers.0"), SlicedBlock)
    _, shared = narrowed(dense, keep_ratio=0.75, rotations="shared")
    assert type(shared.get_submodule("model.layers.0")) is type(dense.module.get_submodule("model.layers.0"))


def test_an_output_layer_is_untied_for_good_and_that_of_the_dense_model_is_not() -> None:
    dense = model_of("tied")
    _, sliced = narrowed(dense, keep_ratio=0.75)
    model: Any = sliced
    before = small.logits(model)
    model.tie_weights()
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    assert torch.equal(small.logits(model), before)
    original: Any = dense.module
    original.tie_weights()
    assert original.config.tie_word_embeddings
    assert original.get_output_embeddings().weight is original.get_input_embeddings().weight


def test_bases_of_their_own_hold_more_of_what_is_read_than_a_shared_one() -> None:
    dense = model_of("qwen2")
    lost = []
    for rotations in ROTATIONS:
        plan, _ = narrowed(dense, keep_ratio=0.75, rotations=rotations)
        damage = SliceGpt().damage(profiler(dense).profile([SlicedBases(rotations)]), plan.layers)
        assert ((damage >= 0) & (damage <= 1)).all()
        lost.append(np.square(damage).mean())
    assert lost[0] < lost[1]


# With other stages


def test_slices_factors_healing_and_few_bits_compose() -> None:
    dense = taught()
    base = Profiler(dense, counting(), small.CONTEXT)
    asked = Candidate.of(
        {
            "prune": "slicegpt",
            "prune.keep_ratio": 0.75,
            "factorise": "whitened_svd",
            "factorise.keep_ratio": 0.8,
            "heal": "distil",
            "heal.steps": 3,
            "quantize": "rtn",
            "quantize.bits": 8,
            "quantize.group_size": 0,
        }
    )
    plan = planned(base, asked)
    model = compressed(base, asked, plan)
    assert healed(base, asked, plan, model, seed=1) is not None
    check_counts(plan, model, dense.module)
    assert [change.stage for change in plan.changes] == ["prune", "factorise", "quantize"]
    assert [change.is_healed for change in plan.changes] == [False, False, True]
    sliced = plan.changes[0].plan.linear_parameters
    assert plan.linear_parameters <= 0.8 * sliced < sliced == 0.75 * plan.architecture.linear_parameters


@pytest.mark.parametrize(
    "healing",
    [{"heal": "fine_tune"}, {"heal": "lora", "rank": 2}, {"heal": "lora", "rank": 2, "adapter": "kept"}],
    ids=lambda healing: ":".join(map(str, healing.values())),
)
def test_healing_brings_some_of_it_back(healing: dict[str, Value]) -> None:
    sick = patient(taught(), healing, {"prune": "slicegpt", "prune.keep_ratio": 0.5})
    before = held_out_loss(sick)
    outcome = heal(sick, steps=10)
    assert outcome.before == pytest.approx(before)
    assert outcome.kept_after
    assert held_out_loss(sick) < before
    assert Held.by(sick.model).parameters == sick.plan.parameters


def test_healing_trains_the_layers_of_the_blocks_and_no_more() -> None:
    _, model = narrowed(model_of("qwen2"), keep_ratio=0.75)
    assert isinstance(model.get_submodule("model.embed_tokens"), NarrowEmbedding)
    trained = {id(parameter) for parameter in factor_parameters(model)}
    assert trained == {id(model.get_parameter(f"{name}.weight")) for name, _ in linear_layers(model)}


@pytest.mark.parametrize("loss", ["hidden", "local"])
def test_losses_that_compare_hidden_states_are_refused(loss: str) -> None:
    asked = Candidate.of({"prune": "slicegpt", "prune.keep_ratio": 0.5, "heal": "distil", "heal.loss": loss})
    with pytest.raises(Unsupported, match=rf"heal.loss={loss} compares hidden states[\s\S]*distil"):
        planned(profiler(model_of("llama")), asked)


def test_an_embedding_that_has_become_narrower_is_not_replaced() -> None:
    asked = Candidate.of(
        {"prune": "slicegpt", "prune.keep_ratio": 0.5, "embed": "tt_embedding", "embed.keep_ratio": 0.5}
    )
    with pytest.raises(Unsupported, match="changes the embedding or the width"):
        planned(profiler(model_of("llama")), asked)


@pytest.mark.parametrize("rotations", ROTATIONS)
def test_there_is_no_dense_form(rotations: Rotations) -> None:
    dense = model_of("llama")
    _, model = narrowed(dense, keep_ratio=0.75, rotations=rotations)
    with pytest.raises(Unsupported, match=r"one width[\s\S]*--form factored"):
        merged(model, dense.module)


# Refusals


@pytest.mark.parametrize(
    ("name", "owner"), [("gpt2", "GPT2Block"), ("opt", "OPTDecoderLayer"), ("neox", "GPTNeoXLayer")]
)
def test_models_with_layer_norms_are_refused_by_name_when_they_are_planned(name: str, owner: str) -> None:
    base = profiler(model_of(name))
    with pytest.raises(Unsupported, match=rf"slicegpt: the stream through a {owner} is not known"):
        planned(base, candidate(keep_ratio=0.5))


def test_weights_without_a_known_place_are_refused() -> None:
    dense = model_of("llama", "slicegpt-odd")
    more: Any = dense.module.get_submodule("model.layers.1.mlp")
    more.register_parameter("extra", nn.Parameter(torch.ones(3), requires_grad=False))
    with pytest.raises(Unsupported, match=r"model.layers.1.mlp of LlamaForCausalLM has weights whose place"):
        planned(profiler(dense), candidate(keep_ratio=0.5))


def test_several_precisions_are_refused() -> None:
    dense = model_of("llama", "slicegpt-precisions")
    norm: Any = dense.module.get_submodule("model.norm")
    norm.weight.data = norm.weight.data.bfloat16()
    with pytest.raises(Unsupported, match="different precisions"):
        planned(profiler(dense), candidate(keep_ratio=0.5))


def test_a_width_that_makes_no_layer_is_refused_with_the_least_share() -> None:
    with pytest.raises(Unsupported, match=r"keep_ratio=0.3 leaves 8 of 32[\s\S]*0.5 and more"):
        planned(profiler(model_of("llama")), candidate(keep_ratio=0.3))


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"keep_ratio": 1.0}, "prune.keep_ratio"),
        ({"keep_ratio": 0.5, "multiple": 0}, "prune.multiple"),
        ({"keep_ratio": 0.5, "rotations": "none"}, "prune.rotations"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs: dict[str, Value], said: str) -> None:
    with pytest.raises(Unsupported, match=said):
        planned(profiler(model_of("llama")), candidate(**knobs))


def test_an_embedding_with_nan_is_named() -> None:
    dense = model_of("llama", "slicegpt-nan")
    table: Tensor = dense.module.get_parameter("model.embed_tokens.weight")
    with torch.no_grad():
        table[3, 0] = torch.nan
    with pytest.raises(NonFinite, match=r"what model.layers.0.input_layernorm reads holds NaN"):
        planned(profiler(dense), candidate(keep_ratio=0.5))
