"""Biases that compensation adds, in the dense form of architectures with and without a place for them."""

from typing import Any

import pytest
import torch
from torch import nn

from hpo.compress.layers import NarrowLinear
from hpo.compress.surgery import shared_copy
from hpo.deliver.biases import added_biases
from hpo.deliver.export import merged
from hpo.errors import Unsupported
from tests.compress import small
from tests.compress.narrowing import family, relative_error
from tests.compress.pruning import pruned


def test_a_switch_of_the_configuration_gives_every_layer_of_its_kind_a_bias() -> None:
    dense = family("llama")
    _, model = pruned(dense, "flap", keep_ratio=0.6, structure="uniform")
    whole: Any = merged(model, dense.module)
    assert (whole.config.attention_bias, whole.config.mlp_bias) == (True, True)
    theirs: Any = dense.module
    assert (theirs.config.attention_bias, theirs.config.mlp_bias) == (False, False)
    again = type(whole)(whole.config)
    assert again.load_state_dict(whole.state_dict()) == nn.modules.module._IncompatibleKeys([], [])
    assert relative_error(again.eval(), small.logits(model)) < 1e-5
    grown = sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in theirs.parameters())
    # In each of two blocks 32 + 16 + 16 + 32 in the attention, 48 + 48 + 32 in the MLP.
    assert sum(added_biases(model, theirs).values()) == grown == 2 * (96 + 128)
    assert not whole.get_submodule("model.layers.0.self_attn.q_proj").bias.any()


def test_only_the_switch_that_is_needed_is_turned() -> None:
    dense = family("llama")
    old: Any = dense.module.get_submodule("model.layers.1.mlp.down_proj")
    model = shared_copy(dense.module)
    model.get_submodule("model.layers.1.mlp").down_proj = NarrowLinear(old.weight.detach(), torch.ones(32))
    whole: Any = merged(model, dense.module)
    assert (whole.config.attention_bias, whole.config.mlp_bias) == (False, True)
    assert len(added_biases(model, dense.module)) == 2 * 3


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "neox"])
def test_where_every_layer_has_a_bias_or_none_is_added_nothing_changes(name: str) -> None:
    dense = family(name)
    _, model = pruned(dense, "flap", keep_ratio=0.7, compensate=name != "llama")
    assert added_biases(model, dense.module) == {}


@pytest.mark.parametrize("name", ["qwen2", "mistral"])
def test_an_architecture_without_a_place_for_it_is_refused_and_what_to_do_is_said(name: str) -> None:
    dense = family(name)
    _, model = pruned(dense, "flap", keep_ratio=0.75)
    with pytest.raises(Unsupported, match=r"has a bias, and a \w+ can have none there[\s\S]*factored form"):
        merged(model, dense.module)
