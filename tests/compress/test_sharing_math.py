"""One basis for several matrices: numbers worked by hand, brute force over all bases, and least squares."""

import math

import pytest
import torch
from torch import Tensor

from hpo.compress.sharing_math import balanced_shared, fitted, shared_factors
from hpo.compress.svd_math import root
from hpo.errors import NonFinite

I2 = torch.eye(2, dtype=torch.float64)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram(features: int, tokens: int, seed: int) -> Tensor:
    x = random(tokens, features, seed=seed)
    return x.T @ x


def error(weight: Tensor, approximation: Tensor, gram_II: Tensor) -> float:
    """Return ||(W - W') S||_F^2 with S S' = G."""
    difference = weight - approximation
    return float((difference @ gram_II * difference).sum())


def test_the_basis_points_where_the_matrices_together_are_largest() -> None:
    # One below the other they are diag(3, 4). Inputs sum to 2 I, so the singular values are 4 and 3 times
    # the root of 2, and rank 1 keeps the second matrix and nothing of the first.
    weights = [torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])]
    (first, second), basis, singular = shared_factors(weights, [I2, I2], keep=2)
    torch.testing.assert_close(singular, math.sqrt(2) * torch.tensor([4.0, 3.0]).double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(first[:, :1] @ basis[:1], torch.zeros(1, 2).double())
    torch.testing.assert_close(second[:, :1] @ basis[:1], weights[1].double())
    torch.testing.assert_close(first @ basis, weights[0].double())


def test_inputs_of_one_member_decide_for_all() -> None:
    # The first feature is never on in the first block but ten times in the second: 100 against 1 + 1.
    weights = [torch.tensor([[0.0, 4.0]]), torch.tensor([[3.0, 0.0]])]
    grams = [torch.diag(torch.tensor([0.0, 1.0])), torch.diag(torch.tensor([100.0, 1.0]))]
    (first, second), basis, _ = shared_factors(weights, grams, keep=1)
    torch.testing.assert_close(second @ basis, weights[1].double())
    torch.testing.assert_close(first @ basis, torch.zeros(1, 2).double())


def test_no_basis_of_one_row_is_better_than_the_one_found() -> None:
    """Brute force: every direction of the plane, with the best coefficients for it."""
    weights = [random(3, 2, seed=0), random(3, 2, seed=1), random(3, 2, seed=2)]
    grams = [gram(2, 7, seed=3 + k) for k in range(3)]
    total = grams[0] + grams[1] + grams[2]
    common, basis, singular = shared_factors(weights, grams, keep=1)
    found = sum(error(w, c @ basis, total) for w, c in zip(weights, common, strict=True))
    assert found == pytest.approx(float(singular[1] ** 2), rel=1e-4)
    tall = torch.cat(weights)
    best = math.inf
    for angle in torch.linspace(0, math.pi, 2001, dtype=torch.float64):
        row = torch.stack([angle.cos(), angle.sin()])[None]
        coefficients = tall @ total @ row.T / (row @ total @ row.T)
        best = min(best, error(tall, coefficients @ row, total))
    assert found <= best * (1 + 1e-6)
    assert found == pytest.approx(best, rel=1e-3)


def test_coefficients_answer_to_the_layers_own_inputs() -> None:
    # W G B' = (2, 1) . (1, 1) = 3 and B G B' = 1: where features come together, the coefficient of the
    # first takes over what the second would add.
    own = fitted(
        weight_OI=torch.tensor([[2.0, 1.0]]),
        gram_II=torch.tensor([[1.0, 1.0], [1.0, 2.0]]),
        basis_KI=torch.tensor([[1.0, 0.0]]),
        common_OK=torch.tensor([[2.0]]),
    )
    assert float(own.coefficients(1)) == pytest.approx(3.0, rel=1e-5)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_coefficients_of_every_rank_are_those_of_least_squares(rank: int) -> None:
    weights, grams = [random(6, 8, seed=k) for k in range(2)], [gram(8, 20, seed=5 + k) for k in range(2)]
    common, basis, _ = shared_factors(weights, grams, keep=5)
    for weight, inputs, left in zip(weights, grams, common, strict=True):
        S = root(inputs)
        expected = torch.linalg.lstsq((basis[:rank] @ S).T, (weight @ S).T).solution.T
        found = fitted(weight, inputs, basis, left).coefficients(rank)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        assert error(weight, found @ basis[:rank], inputs) <= error(
            weight, left[:, :rank] @ basis[:rank], inputs
        )


def test_at_full_rank_coefficients_are_exact_whatever_the_inputs_were() -> None:
    weights = [random(6, 4, seed=k) for k in range(2)]
    silent, alone = torch.zeros(4, 4).double(), gram(4, 1, seed=3)  # no input at all, and a single one
    common, basis, _ = shared_factors(weights, [silent, alone], keep=4)
    for weight, inputs, left in zip(weights, (silent, alone), common, strict=True):
        found = fitted(weight, inputs, basis, left).coefficients(4) @ basis
        torch.testing.assert_close(found, weight, rtol=1e-6, atol=1e-6)


def test_inputs_that_rounding_left_indefinite_are_borne_and_others_refused() -> None:
    weight, basis = random(3, 4, seed=0), torch.eye(4, dtype=torch.float64)
    rounded = torch.diag(torch.tensor([1.0, 1.0, 1.0, -1e-4]))
    torch.testing.assert_close(fitted(weight, rounded, basis, weight).coefficients(4), weight.double())
    with pytest.raises(NonFinite, match="not positive semidefinite"):
        fitted(weight, torch.diag(torch.tensor([1.0, 1.0, 1.0, -1.0])), basis, weight)


def test_a_broken_weight_is_refused() -> None:
    broken = torch.tensor([[1.0, math.nan]])
    with pytest.raises(NonFinite, match="NaN or infinity"):
        shared_factors([broken, broken], [I2, I2], keep=1)


def test_balancing_evens_scales_out_and_leaves_every_product() -> None:
    coefficients, basis = [1e3 * random(5, 3, seed=0), 1e3 * random(4, 3, seed=1)], random(3, 6, seed=2)
    even, common = balanced_shared(coefficients, basis)
    for before, after in zip(coefficients, even, strict=True):
        torch.testing.assert_close(after @ common, before @ basis)
    tall = torch.cat(even)
    torch.testing.assert_close(tall.T @ tall, common @ common.T)
