"""Penalties on the spectrum: worked by hand, held against torch's SVD, gradients against differences."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hpo.compress.regularisers import (
    CONCENTRATION,
    NUCLEAR_NORM,
    STABLE_RANK,
    Regulariser,
    leading_pair,
    nuclear_norm,
    polar_factor,
    spectral_concentration,
    stable_rank,
)

Measure = Callable[[Tensor], Tensor]
ALL: list[Measure] = [spectral_concentration, stable_rank, nuclear_norm]


def with_spectrum(values: list[float], rows: int = 6, columns: int = 9, seed: int = 0) -> Tensor:
    """Return a matrix with these singular values and random directions."""
    generator = torch.Generator().manual_seed(seed)
    sides = [torch.randn(n, len(values), generator=generator, dtype=torch.float64) for n in (rows, columns)]
    u, v = (torch.linalg.qr(side).Q for side in sides)
    matrix: Tensor = (u * torch.tensor(values, dtype=torch.float64)) @ v.T
    return matrix


def by_svd(measure: Measure, W: Tensor) -> float:
    s = torch.linalg.svdvals(W.double())
    if measure is spectral_concentration:
        return float(1 - (s**4).sum() / (s**2).sum() ** 2)
    if measure is stable_rank:
        return float((s**2).sum() / s[0] ** 2)
    return float(s.sum() / (s**2).sum().sqrt())


@pytest.mark.parametrize(
    ("measure", "expected"),
    # Energies 16, 9 of 25 in all: 1 - (256 + 81) / 625; 25 / 16; (4 + 3) / 5.
    [(spectral_concentration, 0.4608), (stable_rank, 1.5625), (nuclear_norm, 1.4)],
)
def test_a_matrix_of_two_rotated_directions_is_worked_by_hand(measure: Measure, expected: float) -> None:
    # Rows (0, 0, 4) and (3, 0, 0): singular values 4 and 3.
    W = torch.tensor([[0.0, 0.0, 4.0], [3.0, 0.0, 0.0]])
    assert float(measure(W)) == pytest.approx(expected, abs=1e-9)
    assert float(measure(W.T)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("measure", "expected"), [(spectral_concentration, 0.0), (stable_rank, 1.0), (nuclear_norm, 1.0)]
)
def test_rank_one_is_the_least_there_is(measure: Measure, expected: float) -> None:
    W = torch.outer(torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5, 4.0]))
    assert float(measure(W)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("measure", "expected"), [(spectral_concentration, 0.75), (stable_rank, 4.0), (nuclear_norm, 2.0)]
)
def test_equal_singular_values_are_the_most_there_is(measure: Measure, expected: float) -> None:
    assert float(measure(torch.eye(4))) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("regulariser", [CONCENTRATION, STABLE_RANK, NUCLEAR_NORM])
def test_a_flat_spectrum_has_the_whole_share_and_rank_one_little(regulariser: Regulariser) -> None:
    least = regulariser.flat(1) / regulariser.flat(16)
    assert float(regulariser.share(5 * torch.eye(16, 24))) == pytest.approx(1, rel=1e-6)
    assert float(regulariser.share(torch.ones(16, 24))) == pytest.approx(least, abs=1e-6)


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("shape", [(5, 11), (11, 5), (7, 7)])
def test_values_are_those_of_the_singular_values(measure: Measure, shape: tuple[int, int]) -> None:
    W = with_spectrum([5.0, 3.0, 1.0, 0.2, 0.01], *shape)
    assert float(measure(W)) == pytest.approx(by_svd(measure, W), rel=1e-6)


@pytest.mark.parametrize("measure", ALL)
def test_scale_does_not_matter(measure: Measure) -> None:
    W = with_spectrum([3.0, 2.0, 0.5])
    for scale in (1e-6, 1e6):
        assert float(measure(scale * W)) == pytest.approx(float(measure(W)), rel=1e-9)


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_gradients_are_those_of_differences(measure: Measure, shape: tuple[int, int]) -> None:
    W = with_spectrum([4.0, 2.0, 1.5, 0.5], *shape).requires_grad_()
    assert torch.autograd.gradcheck(measure, (W,), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("measure", ALL)
def test_the_gradient_leads_towards_low_rank(measure: Measure) -> None:
    W = with_spectrum([3.0, 2.0, 1.0]).requires_grad_()
    before = measure(W)
    before.backward()
    assert W.grad is not None
    with torch.no_grad():
        after = measure(W - 0.1 * W.grad)
    assert float(after) < float(before.detach()) - 1e-3


@pytest.mark.parametrize("measure", ALL)
def test_zeros_cost_nothing_and_pull_nowhere(measure: Measure) -> None:
    W = torch.zeros(3, 5, requires_grad=True)
    value = measure(W)
    value.backward()
    assert value.item() == 0
    assert W.grad is not None
    assert not W.grad.any()


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_double(measure: Measure, dtype: torch.dtype) -> None:
    W = (300 * with_spectrum([3.0, 2.0, 1.0])).to(dtype).requires_grad_()  # squares overflow float16
    value = measure(W)
    value.backward()
    assert value.dtype is torch.float64
    assert value.item() == pytest.approx(by_svd(measure, W.detach()), rel=1e-6)
    assert W.grad is not None
    assert W.grad.dtype is dtype
    assert W.grad.isfinite().all()


def test_the_power_iteration_finds_the_leading_pair_where_the_second_is_close() -> None:
    W = with_spectrum([1.0, 0.9, 0.8, 0.7], 40, 30)
    u, v = leading_pair(W)
    assert float(u @ W @ v) == pytest.approx(1.0, rel=1e-3)
    assert float(u.norm()) == pytest.approx(1.0)
    assert float(v.norm()) == pytest.approx(1.0)


def test_the_power_iteration_does_not_start_where_the_largest_entry_is() -> None:
    # The largest entry is 3, the largest singular value 4, in other coordinates.
    W = torch.block_diag(torch.tensor([[3.0]]), 2 * torch.ones(2, 2)).double()
    assert float(stable_rank(W)) == pytest.approx(25 / 16, rel=1e-4)


def test_the_polar_factor_is_u_times_v_and_leaves_out_what_is_not_there() -> None:
    W = with_spectrum([2.0, 1.0, 0.0, 0.0])
    u, s, vh = torch.linalg.svd(W, full_matrices=False)
    expected = (u * (s > 1e-6)) @ vh
    assert torch.allclose(polar_factor(W), expected, atol=1e-6)
