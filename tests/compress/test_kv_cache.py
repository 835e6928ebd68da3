"""The key-value cache in few bits: hand-worked groups, exact bytes, and models that decode with it."""

from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache

from hpo.compress.applying import compressed
from hpo.compress.cache_plan import CachePlan, CacheShape
from hpo.compress.cache_shapes import cache_shapes, kv_cache_bytes
from hpo.compress.layers.kv_cache import PackedCache, PackedCacheLayer, PackedStates
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.profiling import Profiler
from hpo.errors import Unsupported
from hpo.measure.memory import check_cache
from hpo.measure.probe import Cost, Subject
from hpo.measure.quality import mean_nll
from hpo.space import Candidate
from tests.compress import small

KIVI = {"cache": "kivi", "cache.group_size": 4, "cache.residual": 4}


def states(tokens: int, size: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 2, tokens, size, generator=torch.Generator().manual_seed(seed))


def made(values: dict[str, Any], family: str = "llama") -> tuple[Any, Any]:
    asked = Candidate.of(values)
    base = Profiler(small.dense_model(family), small.corpus(), small.CONTEXT)
    plan = plan_of(base.profile(preparations_of(asked)), asked)
    return compressed(base, asked, plan), plan


def test_a_key_channel_has_its_own_grid_over_a_group_of_tokens() -> None:
    """Two bits have four levels: a channel of 0, 1, 2, 3 and one a hundred times as large are both exact."""
    keys = torch.tensor([[0.0, 0.0], [1.0, 100.0], [2.0, 200.0], [3.0, 300.0]])[None, None]
    packed = PackedStates(bits=2, size=4)
    wide = keys.repeat(1, 1, 1, 2)  # four channels fill a byte
    packed.add(wide, dim=-2)
    (found,) = packed.values(-2, 4, torch.float32)
    assert torch.equal(found, wide)
    codes, scales, offsets = packed.parts[0]
    assert codes.shape == (1, 1, 4, 1)
    assert scales.flatten().tolist() == [1.0, 100.0, 1.0, 100.0]
    assert not offsets.any()


def test_a_value_has_a_grid_of_its_own_whatever_other_tokens_are() -> None:
    values = torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, 100.0, 200.0, 300.0]])[None, None]
    packed = PackedStates(bits=2, size=4)
    packed.add(values, dim=-1)
    assert torch.equal(packed.values(-1, 4, torch.float32)[0], values)


def test_what_is_packed_follows_from_how_many_tokens_there_are() -> None:
    """Eleven tokens, a rest of four and groups of four: four are packed, however the tokens came."""
    at_once, one_by_one = (PackedCacheLayer(4, group_size=4, residual=4) for _ in range(2))
    keys, values = states(11), states(11, seed=1)
    found = at_once.update(keys, values)
    for k in range(11):
        last = one_by_one.update(keys[..., k : k + 1, :], values[..., k : k + 1, :])
    assert at_once.packed == one_by_one.packed == 4
    assert at_once.get_seq_length() == 11
    for whole, stepwise, given in zip(found, last, (keys, values), strict=True):
        assert torch.equal(whole, stepwise)
        assert torch.equal(whole[..., 4:, :], given[..., 4:, :])
        assert not torch.equal(whole[..., :4, :], given[..., :4, :])


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("tokens", "size", "group"), [(11, 8, 4), (64, 16, 32), (3, 8, 4), (40, 12, 8)])
def test_the_plan_counts_the_bytes_that_a_layer_holds(bits: int, tokens: int, size: int, group: int) -> None:
    plan, layer = CachePlan(bits, group, residual=4), PackedCacheLayer(bits, group, residual=4)
    layer.update(states(tokens, size), states(tokens, size, seed=1))
    assert layer.held_bytes == plan.bytes(CacheShape(0, 2, size, size), tokens, 32)


def test_bytes_worked_by_hand() -> None:
    """Two heads of 8 and 8; of 11 tokens 4 are packed at 4 bits in a group of 4: keys are 4 * 4 bytes of
    codes and 8 channels of 4 bytes, values as many codes and 4 tokens * 2 groups of 4 bytes; then 7 tokens of
    16 floats."""
    found = CachePlan(4, 4, 4).bytes(CacheShape(0, 2, 8, 8), 11, 32)
    assert found == 2 * ((16 + 32) + (16 + 32) + 7 * 16 * 4)


@pytest.mark.parametrize("family", list(small.FAMILIES))
def test_at_eight_bits_a_model_hardly_differs_and_at_two_it_does(family: str) -> None:
    dense = small.dense_model(family).module
    expected = small.logits(dense)
    errors = []
    for bits in (8, 2):
        model, _ = made({**KIVI, "cache.bits": bits}, family)
        errors.append(float(torch.linalg.norm(small.logits(model) - expected) / torch.linalg.norm(expected)))
    assert errors[0] < 0.02 < errors[1]


@pytest.mark.parametrize("family", list(small.FAMILIES))
def test_decoding_token_by_token_gives_what_the_cache_holds(family: str) -> None:
    """The last position of one forward reads the same cache that a decoder has filled step by step."""
    model, _ = made({**KIVI, "cache.bits": 4}, family)
    ids = small.corpus(1, seed=3).sequences[0][None, :20]
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=True)
        assert isinstance(whole.past_key_values, PackedCache)
        assert whole.past_key_values.get_seq_length() == 20
        longer = model(input_ids=ids[:, :1], past_key_values=whole.past_key_values, use_cache=True)
        assert longer.past_key_values.get_seq_length() == 21
        tokens = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert tokens.shape == (1, 26)


def test_a_cache_with_tokens_in_it_is_left_alone() -> None:
    model, _ = made(KIVI)
    ids = small.corpus(1).sequences[0][None, :8]
    begun = DynamicCache()
    with torch.no_grad():
        small.dense_model().module(input_ids=ids, past_key_values=begun, use_cache=True)
        out = model(input_ids=ids[:, :1], past_key_values=begun, use_cache=True)
    assert out.past_key_values is begun


@pytest.mark.parametrize(
    "values",
    [
        KIVI,
        {},
        {"factorise": "modegpt", "factorise.keep_ratio": 0.6, "factorise.head_multiple": 2},
        {
            "factorise": "modegpt",
            "factorise.keep_ratio": 0.6,
            "factorise.head_multiple": 2,
            **KIVI,
            "cache.bits": 8,
        },
        {"quantize": "rtn", "quantize.group_size": 0, **KIVI},
        {"factorise": "svd", "factorise.keep_ratio": 0.5, **KIVI},
    ],
    ids=lambda values: ",".join(values) or "dense",
)
def test_the_plan_s_bytes_are_those_of_a_filled_cache(values: dict[str, Any]) -> None:
    model, plan = made(values)
    dense = small.dense_model()
    subject = Subject(
        model=model,
        dense=dense.module,
        cost=Cost(plan.parameters, plan.weight_bytes, plan.prefill_macs, kv_cache_bytes(plan, small.CONTEXT)),
        evaluation=small.corpus(),
        context=small.CONTEXT,
        device="cpu",
    )
    ids = torch.zeros((1, small.CONTEXT), dtype=torch.long)
    with torch.no_grad():
        check_cache(subject, ids)


def test_a_candidate_that_changes_the_cache_alone_is_a_plan_of_its_own() -> None:
    model, plan = made(KIVI)
    dense = small.dense_model().module
    assert not plan.is_dense
    assert plan.hash != made({**KIVI, "cache.bits": 2})[1].hash
    assert plan.weight_bytes == made({})[1].weight_bytes
    assert cache_shapes(plan) == plan.architecture.cache
    assert mean_nll(model, small.corpus()) != mean_nll(dense, small.corpus())
    assert not dense._forward_pre_hooks


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"cache.bits": 3}, "cache.bits"),
        ({"cache.group_size": 0}, "cache.group_size"),
        ({"cache.window": 3}, "cache.window"),
    ],
)
def test_wrong_knobs_are_refused_by_name(knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(Unsupported, match=said):
        made({"cache": "kivi", **knobs})


def test_heads_that_fill_no_whole_bytes_are_refused_by_the_block() -> None:
    assert "do not fill whole bytes" in CachePlan(2, 4, 4).fault(CacheShape(0, 1, 6, 8))
    with pytest.raises(Unsupported, match="allowed: 2, 4, 8"):
        CachePlan(5, 4, 4)


def test_beams_are_reordered_with_their_packed_tokens() -> None:
    layer = PackedCacheLayer(4, group_size=4, residual=4)
    keys = torch.cat([states(12), states(12, seed=5)])
    before, _ = layer.update(keys, keys)
    layer.reorder_cache(torch.tensor([1, 1]))
    after, _ = layer.update(keys[:, :, :1], keys[:, :, :1])
    assert torch.equal(after[0, :, :12], before[1])
    assert torch.equal(after[1, :, :12], before[1])
    with pytest.raises(NotImplementedError, match="cannot be removed"):
        layer.crop(-1)
