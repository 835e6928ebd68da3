"""Narrower models of every family: the same function where nothing is lost, costs, caches, export."""

from typing import Any

import pytest
import torch

from hpo.compress.layers.narrow import NarrowAttention, NarrowLinear
from hpo.compress.modegpt_parts import Attention, anatomy
from hpo.compress.surgery import count_macs
from hpo.deliver.export import merged
from hpo.measure.memory import Held
from tests.compress import small
from tests.compress.narrowing import (
    FAMILIES,
    attention_path,
    cut_to,
    family,
    narrowed,
    profiler,
    relative_error,
    thin_out,
)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_with_useless_halves_is_reproduced_at_half_its_size(name: str) -> None:
    dense = family(name, f"half-{name}")
    thin_out(dense)
    expected = small.logits(dense.module)
    model = cut_to(dense, 0.5)
    assert sum(isinstance(m, NarrowAttention) for m in model.modules()) == 2
    assert sum(isinstance(m, NarrowLinear) for m in model.modules()) in (4, 6)
    names = [f"{name}.weight" for name, _ in small.weights(dense.module)]
    before, after = ([m.get_parameter(name).numel() for name in names] for m in (dense.module, model))
    assert sum(after) == sum(before) / 2
    assert relative_error(model, expected) < 1e-4
    assert torch.equal(small.logits(dense.module), expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_at_full_size_the_narrow_modules_compute_what_the_dense_ones_do(name: str) -> None:
    dense = family(name)
    base = profiler(dense)
    model = cut_to(dense, 1.0)
    for part in anatomy(dense.module, base.architecture).parts:
        if isinstance(part, Attention):
            attention = model.get_submodule(part.path)
            assert isinstance(attention, NarrowAttention)
            assert (attention.query_key, attention.value) == (part.heads.size, part.heads.size)
    assert relative_error(model, small.logits(dense.module)) < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "knobs",
    [
        {"keep_ratio": 0.6, "query_key": 1.0},
        {"keep_ratio": 0.8, "query_key": 0.5, "order": "leverage"},
        {"keep_ratio": 0.7, "value": 0.5, "query_key": 3.0},
    ],
)
def test_the_plan_counts_what_the_model_holds_and_computes(name: str, knobs: dict[str, Any]) -> None:
    dense = family(name)
    plan, model = narrowed(dense, **knobs)
    assert count_macs(model, small.CONTEXT) == plan.prefill_macs < count_macs(dense.module, small.CONTEXT)
    held, before = Held.by(model), Held.by(dense.module)
    assert held.parameters == plan.parameters
    assert held.parameter_bytes + held.buffer_bytes - before.buffer_bytes == plan.weight_bytes
    smallest_step = 200 / plan.architecture.linear_parameters  # a pair of dimensions, or a unit
    kept = plan.linear_parameters / plan.architecture.linear_parameters
    assert kept == pytest.approx(knobs["keep_ratio"], abs=0.005 + smallest_step)


@pytest.mark.parametrize("name", FAMILIES)
def test_zeros_in_place_of_what_was_left_out_give_the_same_function(name: str) -> None:
    dense = family(name)
    _, model = narrowed(dense, keep_ratio=0.7, query_key=0.8)
    whole = merged(model, dense.module)
    assert [p.shape for p in whole.parameters()] == [p.shape for p in dense.module.parameters()]
    assert type(whole.get_submodule(attention_path(model))) is type(
        dense.module.get_submodule(attention_path(model))
    )
    assert relative_error(whole, small.logits(model)) < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_generation_with_a_cache_predicts_what_a_whole_forward_does(name: str) -> None:
    _, model = narrowed(family(name), keep_ratio=0.7, query_key=0.8)
    prompt = torch.arange(3, 11)[None]
    generated: Any = model
    with torch.no_grad():
        found = generated.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=12,
            min_new_tokens=12,
            do_sample=False,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        whole = generated(input_ids=found.sequences, use_cache=False).logits[0, 7:-1]
    steps = torch.cat(found.logits)
    assert len(steps) == 12
    assert torch.allclose(steps, whole, atol=1e-3 * float(whole.abs().max()))
    keys = found.past_key_values.layers[0].keys
    values = found.past_key_values.layers[0].values
    attention = model.get_submodule(attention_path(model))
    assert isinstance(attention, NarrowAttention)
    assert (keys.shape[-1], values.shape[-1]) == (attention.query_key, attention.value)
    assert attention.query_key < attention.heads.size


@pytest.mark.parametrize("name", FAMILIES)
def test_padded_batches_and_plain_attention_give_the_same_logits(name: str) -> None:
    _, model = narrowed(family(name), keep_ratio=0.7, query_key=0.8)
    ids = small.corpus(1, seed=4).sequences[0][None]
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), ids[:, :-5]], 1)
    mask = torch.ones_like(padded)
    mask[:, :5] = 0
    runs: Any = model
    with torch.no_grad():
        alone = runs(input_ids=ids[:, :-5], use_cache=False).logits
        places = (mask.cumsum(1) - 1).clamp(min=0)
        together = runs(input_ids=padded, attention_mask=mask, position_ids=places, use_cache=False).logits
        runs.set_attn_implementation("eager")
        plain = runs(input_ids=ids[:, :-5], use_cache=False).logits
    scale = float(alone.abs().max())
    assert torch.allclose(together[:, 5:], alone, atol=1e-4 * scale)
    assert torch.allclose(plain, alone, atol=1e-4 * scale)
