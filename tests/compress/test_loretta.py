import math

import pytest
import torch
from torch import nn

from hpo.compress.loretta import LorettaKnobs, TensorTrainAdapter
from hpo.compress.loretta_math import bonds_of, contracted, drawn_cores
from hpo.errors import Unsupported
from hpo.models.dense import DenseModel
from hpo.space import Value
from tests.compress.healing import patient


def test_a_product_of_cores_by_hand() -> None:
    # two cores of bond 2: entry (i, j) is a_i1 b_1j + a_i2 b_2j, the matrix product
    first = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    second = torch.tensor([[[5.0], [6.0]], [[7.0], [8.0]]])
    assert contracted([first, second]).tolist() == [[19.0, 22.0], [43.0, 50.0]]


def test_a_longer_train_is_the_sum_over_its_bonds() -> None:
    cores = drawn_cores((2, 3, 4), (2, 3), 1.0, torch.Generator().manual_seed(0))
    expected = torch.einsum("xiy,yjz,zkw->ijk", *cores)
    assert torch.allclose(contracted(cores), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("sites", "largest", "bonds"), [((4, 4, 8), 5, (4, 5)), ((2, 2, 2, 2), 9, (2, 4, 2)), ((7,), 3, ())]
)
def test_bonds_are_what_a_cut_can_carry(sites: tuple[int, ...], largest: int, bonds: tuple[int, ...]) -> None:
    assert bonds_of(sites, largest) == bonds


def test_drawn_cores_multiply_to_the_variance_asked_for() -> None:
    generator, squares = torch.Generator().manual_seed(0), []
    for _ in range(300):
        squares.append(contracted(drawn_cores((4, 4, 4), (3, 3), 0.25, generator)).square().mean().item())
    assert sum(squares) / len(squares) == pytest.approx(0.25, rel=0.2)


def test_an_adapter_begins_as_nothing_and_merges_into_what_it_computes() -> None:
    base = nn.Linear(24, 12, bias=False).requires_grad_(False)
    knobs = LorettaKnobs(rank=3, alpha=6, tt_rank=2, sites=2)
    adapter = TensorTrainAdapter(base, knobs, torch.Generator().manual_seed(1))
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(2))
    assert torch.equal(adapter(x), base(x))
    with torch.no_grad():
        adapter.second[-1].copy_(torch.ones_like(adapter.second[-1]))
    first_KI, second_OK = adapter.factors()
    assert (first_KI.shape, second_OK.shape) == ((3, 24), (12, 3))
    expected = x @ (base.weight + 2 * second_OK @ first_KI).T
    assert torch.allclose(adapter(x), expected, atol=1e-5)
    assert torch.allclose(x @ adapter.merged().T, expected, atol=1e-5)


def test_trains_have_far_fewer_weights_than_the_matrices_they_stand_for() -> None:
    base = nn.Linear(512, 512, bias=False).requires_grad_(False)
    adapter = TensorTrainAdapter(base, LorettaKnobs(rank=8, tt_rank=5), torch.Generator())
    trained = sum(parameter.numel() for parameter in adapter.parameters() if parameter.requires_grad)
    # 8, 8, 8 and the rank 8, bonds 5: 8 * 5 + 8 * 25 + 8 * 25 + 8 * 5, twice, against 2 * 8 * 512
    assert trained == 2 * 480
    assert math.prod((2, 8, 512)) / trained > 8


def test_layers_in_few_bits_are_refused(llama: DenseModel) -> None:
    quantised: dict[str, Value] = {"factorise": "eora", "factorise.bits": 4, "factorise.rank": 2}
    with pytest.raises(Unsupported, match="corrected"):
        patient(llama, {"heal": "loretta"}, quantised)
