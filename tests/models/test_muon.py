import torch
from torch import nn

from hpo.models.muon import Muon, orthogonalised


def matrices(count: int, rows: int, columns: int) -> torch.Tensor:
    return torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(0))


def test_singular_values_come_near_one_and_singular_vectors_stay() -> None:
    given = matrices(3, 12, 30)
    made = orthogonalised(given)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.6
    assert values.max() < 1.3
    U, _, Vh = torch.linalg.svd(given, full_matrices=False)
    rotated = U.mT @ made @ Vh.mT
    off_diagonal = rotated - torch.diag_embed(rotated.diagonal(dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() < 1e-4


def test_a_tall_matrix_is_treated_as_its_transpose() -> None:
    wide = matrices(2, 5, 9)
    assert torch.equal(orthogonalised(wide.mT), orthogonalised(wide).mT)


def test_matrices_in_a_batch_do_not_mix() -> None:
    given = matrices(4, 6, 6)
    alone = torch.stack([orthogonalised(matrix[None])[0] for matrix in given])
    assert torch.allclose(orthogonalised(given), alone, atol=1e-5)


def test_a_zero_gradient_does_not_divide_by_zero() -> None:
    assert torch.equal(orthogonalised(torch.zeros(1, 3, 3)), torch.zeros(1, 3, 3))


def test_a_step_follows_the_update_and_scales_tall_matrices() -> None:
    tall = nn.Parameter(torch.zeros(8, 2))
    muon = Muon([tall])
    tall.grad = matrices(1, 8, 2)[0]
    muon.step(0.1)
    # First step: momentum and its look-ahead are multiples of the gradient, and the scale drops out.
    expected = -0.1 * 2.0 * orthogonalised(tall.grad[None])[0]  # 2 = sqrt(8 / 2)
    assert torch.allclose(tall.detach(), expected, atol=1e-5)


def test_it_minimises_a_quadratic() -> None:
    target = matrices(1, 6, 6)[0]
    weight = nn.Parameter(torch.zeros(6, 6))
    muon = Muon([weight])
    for step in range(300):
        loss = (weight - target).square().sum()
        weight.grad = None
        loss.backward()
        muon.step(0.1 * (1 - step / 300))
    assert float((weight - target).detach().square().sum()) < 0.01 * float(target.square().sum())
