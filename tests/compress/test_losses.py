import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hpo.compress.blocks import block_names, recording
from hpo.compress.heal_knobs import Objective
from hpo.compress.losses import (
    CrossEntropy,
    Distribution,
    HiddenStates,
    LocalSlices,
    divergence,
    loss_of,
    real_places,
    token_error,
)
from hpo.compress.surgery import linear_layers, shared_copy
from hpo.compress.training import PADDING, Loss
from hpo.errors import Unsupported
from hpo.models.dense import DenseModel
from tests.compress import small
from tests.compress.healing import counting, knobs

OBJECTIVES: Sequence[Objective] = ("cross_entropy", "distil", "hidden", "local")


def batch() -> tuple[Tensor, Tensor]:
    """Two sequences, one of them shorter."""
    rows = counting(2).sequences
    ids = torch.stack([rows[0], functional.pad(rows[1][:20], (0, small.CONTEXT - 20))])
    targets = ids[:, 1:].clone()
    targets[1, 19:] = PADDING
    return ids, targets


def shaken(dense: DenseModel, *blocks: int) -> Any:
    """Return a copy of a model with other weights in the named blocks (all, if none is)."""
    model = shared_copy(dense.module)
    generator = torch.Generator().manual_seed(1)
    for name, layer in linear_layers(model):
        if not blocks or any(f".{block}." in name for block in blocks):
            weight = layer.get_parameter("weight")
            noise = torch.randn(weight.shape, generator=generator)
            layer.weight = torch.nn.Parameter(weight + 0.05 * noise, requires_grad=False)
    return model


def test_a_divergence_by_hand() -> None:
    teacher = torch.tensor([[math.log(3.0), 0.0]])  # 3/4, 1/4
    student = torch.zeros(1, 2)  # 1/2, 1/2
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert divergence(teacher, student, 1.0).item() == pytest.approx(expected)
    # at temperature 2 the teacher's odds are sqrt(3), and the result counts four times
    p = math.sqrt(3) / (1 + math.sqrt(3))
    expected = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert divergence(teacher, student, 2.0).item() == pytest.approx(expected)


def test_a_token_error_is_relative_to_each_real_token_by_itself() -> None:
    wanted = torch.tensor([[[1000.0, 0.0], [0.0, 2.0], [5.0, 5.0]]])
    found = torch.tensor([[[1000.0, 10.0], [1.0, 2.0], [0.0, 0.0]]])
    real = torch.tensor([[True, True, False]])
    # 10^2 / 1000^2 and 1 / 4
    assert token_error(found, wanted, real).item() == pytest.approx((1e-4 + 0.25) / 2)


def test_the_first_place_is_always_real() -> None:
    targets = torch.tensor([[4, PADDING, PADDING]])
    assert real_places(targets).tolist() == [[True, True, False, False]]


def test_cross_entropy_is_torchs_over_the_real_tokens(llama: DenseModel) -> None:
    ids, targets = batch()
    logits = llama.module(input_ids=ids).logits[:, :-1]
    expected = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PADDING)
    assert CrossEntropy(llama.module)(ids, targets).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES[1:])
@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "opt"])
def test_a_model_has_nothing_to_learn_from_itself(objective: Objective, family: str) -> None:
    dense = small.dense_model(family)
    ids, targets = batch()
    own = loss_of(dense.module, dense.module, knobs(loss=objective, slice_blocks=2))
    other = loss_of(shaken(dense), dense.module, knobs(loss=objective, slice_blocks=2))
    assert abs(own(ids, targets).item()) < 1e-6
    assert other(ids, targets).item() > 1e-3


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_stands_in_the_padding_does_not_matter(objective: Objective, llama: DenseModel) -> None:
    ids, targets = batch()
    changed = ids.clone()
    changed[1, 20:] = 7
    loss = loss_of(shaken(llama), llama.module, knobs(loss=objective))
    assert loss(changed, targets).item() == pytest.approx(loss(ids, targets).item(), rel=1e-4)


def test_hidden_states_add_an_error_of_each_block_to_the_divergence(llama: DenseModel) -> None:
    ids, targets = batch()
    model = shaken(llama)
    plain = Distribution(model, llama.module, 2.0)(ids, targets).item()
    errors = []
    names = block_names(llama.module)
    for name in names:
        with recording(model, names) as found, recording(llama.module, names) as wanted:
            model(input_ids=ids)
            llama.module(input_ids=ids)
        errors.append(token_error(found[name].output, wanted[name].output, real_places(targets)).item())
    both = HiddenStates(model, llama.module, 2.0, 0.5)(ids, targets).item()
    assert both == pytest.approx(plain + 0.5 * sum(errors), rel=1e-4)


def gradients(model: Any, loss: Loss) -> dict[int, float]:
    """Return the norm of the gradient on the weights of each block."""
    parameters = dict(model.named_parameters())
    chosen = {name: p for name, p in parameters.items() if ".mlp.down_proj" in name}
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    found = torch.autograd.grad(loss(*batch()), list(chosen.values()))
    for parameter in chosen.values():  # some are the dense model's own
        parameter.requires_grad_(False)
    return {index: float(gradient.norm()) for index, gradient in enumerate(found)}


def test_local_slices_do_not_answer_for_each_other(llama: DenseModel) -> None:
    # only the last block differs; the first is given what the dense one is given, and is blameless
    local = gradients(model := shaken(llama, 1), LocalSlices(model, llama.module, 1))
    assert local[0] < 1e-6 < local[1]
    together = gradients(model := shaken(llama, 1), LocalSlices(model, llama.module, 2))
    assert min(together.values()) > 1e-4
    everywhere = gradients(model := shaken(llama, 1), Distribution(model, llama.module, 1.0))
    assert min(everywhere.values()) > 1e-4


def test_a_slice_of_all_blocks_sees_what_the_model_computes(llama: DenseModel) -> None:
    ids, targets = batch()
    model, names = shaken(llama), block_names(llama.module)
    with recording(model, names) as found, recording(llama.module, names) as wanted:
        model(input_ids=ids, use_cache=False)
        llama.module(input_ids=ids, use_cache=False)
    last = names[-1]
    expected = token_error(found[last].output, wanted[last].output, real_places(targets)).item()
    assert LocalSlices(model, llama.module, 99)(ids, targets).item() == pytest.approx(expected, rel=1e-4)


def test_recording_leaves_no_hooks_behind(llama: DenseModel) -> None:
    names = block_names(llama.module)
    with recording(llama.module, names):
        assert llama.module.get_submodule(names[0])._forward_hooks
    assert not llama.module.get_submodule(names[0])._forward_hooks


def test_a_model_without_blocks_says_so() -> None:
    with pytest.raises(Unsupported, match="no numbered blocks"):
        block_names(torch.nn.Sequential(torch.nn.Linear(32, 32)))


def test_losses_work_without_gradients_as_mezo_needs_them(llama: DenseModel) -> None:
    for objective in OBJECTIVES:
        with torch.no_grad():
            loss = loss_of(shaken(llama), llama.module, knobs(loss=objective))(*batch())
        assert not loss.requires_grad
