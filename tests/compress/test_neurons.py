"""Neurons and heads in another order: the same model, and less lost."""

from typing import Any

import pytest
import torch
from torch import nn

from hpo.compress.neuron_math import by_size, heads_by_size, sizes, widened
from hpo.compress.neurons import Unit, reorder, unit_of, units
from hpo.compress.surgery import shared_copy, weight_of
from tests.compress import small

KNOWN = {
    "llama": ["self_attn", "mlp"],
    "qwen2": ["self_attn", "mlp"],
    "opt": ["layers.1", "self_attn"],  # its MLP has no module of its own
    "neox": ["mlp"],  # queries, keys and values are one matrix
    "gpt2": ["mlp"],
}


def test_sizes_are_the_mean_of_shares_of_energy_by_hand() -> None:
    first, second = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0], [1.0]])
    assert sizes([first, second]).tolist() == pytest.approx([(0.9 + 0.5) / 2, (0.1 + 0.5) / 2])


def test_neurons_by_size_are_worked_by_hand() -> None:
    sizes_N = torch.tensor([5.0, 1.0, 4.0, 2.0, 6.0, 3.0])  # ascending: 1, 3, 5, 2, 0, 4
    assert by_size(sizes_N, (2, 3), 0).tolist() == [1, 3, 5, 2, 0, 4]
    # Places 0 to 5 have the digits 00 01 02 10 11 12; the last varies slowest: 0, 3, 1, 4, 2, 5.
    assert by_size(sizes_N, (2, 3), 1).tolist() == [1, 5, 0, 3, 2, 4]


def test_heads_stay_in_their_groups_by_hand() -> None:
    groups, heads = heads_by_size(torch.tensor([4.0, 3.0, 1.0, 2.0]), groups=2)
    assert groups.tolist() == [1, 0]
    assert heads.tolist() == [2, 3, 1, 0]
    assert widened(groups, 3).tolist() == [3, 4, 5, 0, 1, 2]


@pytest.mark.parametrize("family", list(small.FAMILIES))
def test_units_are_found_in_every_block(family: str) -> None:
    found = [unit.name for unit in units(small.FAMILIES[family]())]
    assert len(found) == 2 * len(KNOWN[family])
    for ending in KNOWN[family]:
        assert any(name.endswith(ending) for name in found)
    for unit in units(small.FAMILIES[family]()):
        assert {unit_of(member) for member in unit.members} == {unit.name}


def test_a_model_of_unknown_structure_is_left_alone() -> None:
    model: Any = small.llama()
    model.config.model_type = "unheard_of"
    assert units(model) == ()
    assert units(nn.Linear(3, 3)) == ()


@pytest.mark.parametrize("family", list(small.FAMILIES))
def test_reordering_every_unit_leaves_the_function_as_it_was(family: str) -> None:
    """Biases go along, Conv1D is stored transposed, and the original is not touched."""
    dense = small.dense_model(family).module
    with torch.no_grad():  # so that a bias left behind is seen
        for name, parameter in dense.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    before = small.logits(dense)
    model = shared_copy(dense)
    moved = 0
    for seed, unit in enumerate(units(model)):
        for member, order in _orders(model, unit, seed).items():
            reorder(model, unit, member, order)
            moved += 1
    assert moved == sum(len(unit.members) for unit in units(model)) > 0
    after = small.logits(model)
    assert torch.linalg.norm(after - before) < 1e-5 * torch.linalg.norm(before)
    assert torch.equal(small.logits(dense), before)


def _orders(model: nn.Module, unit: Unit, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    queries, *keys = (len(weight_of(model.get_submodule(name))) for name in unit.rows)
    if not unit.heads:
        return dict.fromkeys(unit.members, torch.randperm(queries, generator=generator))
    groups, heads = heads_by_size(torch.rand(unit.heads, generator=generator), unit.groups)
    outer, inner = widened(heads, queries // unit.heads), widened(groups, keys[0] // unit.groups)
    return {unit.rows[0]: outer, unit.rows[1]: inner, unit.rows[2]: inner, unit.column: outer}


def test_rows_moved_without_their_columns_change_the_function() -> None:
    """The test above can fail."""
    dense = small.dense_model("llama").module
    model = shared_copy(dense)
    unit = next(unit for unit in units(model) if not unit.heads)
    reorder(model, unit, unit.column, torch.arange(47, -1, -1))
    before = small.logits(dense)
    assert torch.linalg.norm(small.logits(model) - before) > 1e-2 * torch.linalg.norm(before)
