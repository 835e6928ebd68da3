import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hpo.compress.correction_math import (
    left_for,
    low_rank,
    quantised_factors,
    right_for,
    split,
    weighted_error,
)
from hpo.compress.grid import Grid
from hpo.compress.rounding import RoundToNearest
from hpo.errors import NonFinite

FOUR, TWO = RoundToNearest(Grid(4, 32)), RoundToNearest(Grid(2, 32))

WHOLE = torch.tensor([[-128.0, 1.4, 0.0], [-128.0, 0.0, 2.2]], dtype=torch.float64)
"""At 8 bits a row's scale is 128 / 128 = 1, so it is rounded to whole numbers and leaves 0.4 and 0.2."""


def weight(outs: int = 24, ins: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(outs, ins, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram(ins: int = 32, tokens: int = 100, seed: int = 1) -> Tensor:
    """Inputs whose directions differ in size by 1.5 orders of magnitude."""
    X = weight(tokens, ins, seed) * torch.logspace(0, -1.5, ins, dtype=torch.float64)
    return X.T @ X


def test_the_weighted_error_is_worked_by_hand() -> None:
    E = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    assert weighted_error(E, None) == pytest.approx(1 + 4 + 9)
    # (1, 2) G (1, 2)' = 4 + 2 * 2 * 1 + 4 * 9 = 44 and 3 * 9 * 3 = 81
    assert weighted_error(E, torch.tensor([[4.0, 1.0], [1.0, 9.0]])) == pytest.approx(44 + 81)


def test_rank_one_takes_the_larger_of_two_rounding_errors() -> None:
    found = split(WHOLE, None, RoundToNearest(Grid(8)), rank=1)
    assert found.backbone.dequantise().tolist() == [[-128, 1, 0], [-128, 0, 2]]
    product = found.factors.product
    expected = torch.tensor([[0.0, 0.4, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(product, expected, atol=1e-9)
    assert found.error == pytest.approx(0.2**2)


def test_the_inputs_decide_which_rounding_error_counts() -> None:
    # The third input is 10 times as large as the others: 0.2 * 10 > 0.4 * 1.
    G = torch.diag(torch.tensor([1.0, 1.0, 100.0]))
    found = split(WHOLE, G, RoundToNearest(Grid(8)), rank=1)
    product = found.factors.product
    expected = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.2]], dtype=torch.float64)
    assert torch.allclose(product, expected, atol=1e-6)
    assert found.error == pytest.approx(0.4**2, rel=1e-3)


@pytest.mark.parametrize("shape", [(24, 32), (40, 32)])
@pytest.mark.parametrize("rank", [1, 5, 20])
def test_the_correction_is_the_weighted_svd_of_the_residual(shape: tuple[int, int], rank: int) -> None:
    W, G = weight(*shape), gram()
    found = split(W, G, FOUR, rank)
    residual = W - found.backbone.dequantise().double()
    root = torch.linalg.cholesky(G)
    lost = torch.linalg.svdvals(residual @ root)[rank:]
    assert found.error == pytest.approx(float((lost**2).sum()), rel=1e-3)


def test_rank_zero_is_quantization_alone() -> None:
    W, G = weight(), gram()
    found = split(W, G, FOUR, rank=0, iterations=3)
    assert found.factors.left.shape == (24, 0)
    assert found.factors.right.shape == (0, 32)
    assert torch.equal(found.backbone.dequantise(), FOUR.quantise(W).dequantise())
    assert found.error == pytest.approx(weighted_error(W - found.backbone.dequantise(), G))


@pytest.mark.parametrize("shape", [(24, 32), (40, 32)])
def test_a_correction_of_full_rank_leaves_nothing(shape: tuple[int, int]) -> None:
    W, G = weight(*shape), gram()
    found = split(W, G, TWO, rank=min(shape))
    rebuilt = found.backbone.dequantise().double() + found.factors.product
    assert torch.allclose(rebuilt, W, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 10_000), st.integers(1, 8), st.integers(2, 5), st.sampled_from([2, 3, 4]), st.booleans()
)
def test_alternation_is_never_worse_than_none(
    seed: int, rank: int, iterations: int, bits: int, few_bits: bool
) -> None:
    W, G = weight(16, 20, seed), gram(20, seed=seed + 1)
    quantizer = RoundToNearest(Grid(bits))
    of_factors = RoundToNearest(Grid(4)) if few_bits else None
    once = split(W, G, quantizer, rank, of_factors=of_factors)
    more = split(W, G, quantizer, rank, iterations, of_factors)
    assert more.error <= once.error * (1 + 1e-9)
    rebuilt = more.backbone.dequantise().double() + more.factors.product
    assert weighted_error(W - rebuilt, G) == pytest.approx(more.error, rel=1e-6)


def test_alternation_gains_on_a_matrix_of_low_rank_and_noise() -> None:
    W = 3 * weight(24, 4) @ weight(4, 32, seed=5) + 0.1 * weight(24, 32, seed=6)
    once, more = (split(W, gram(), TWO, 4, iterations) for iterations in (1, 5))
    assert more.error < 0.1 * once.error


def test_the_right_factor_is_the_least_squares_answer_to_the_left() -> None:
    left, M = weight(24, 5, seed=7), weight()
    assert torch.allclose(right_for(left, M), torch.linalg.lstsq(left, M).solution, atol=1e-9)


def test_the_left_factor_is_the_least_squares_answer_to_the_right_on_weighted_inputs() -> None:
    right, M, G = weight(5, 32, seed=8), weight(), gram()
    root = torch.linalg.cholesky(G)
    expected = torch.linalg.lstsq((right @ root).T, (M @ root).T).solution.T
    assert torch.allclose(left_for(right, M, G), expected, atol=1e-8)


def test_factors_that_are_alike_give_a_finite_answer() -> None:
    left = torch.ones(6, 2, dtype=torch.float64)
    found = right_for(left, torch.ones(6, 3, dtype=torch.float64))
    assert torch.allclose(left @ found, torch.ones(6, 3, dtype=torch.float64))
    assert torch.isfinite(left_for(torch.zeros(2, 3, dtype=torch.float64), weight(4, 3), None)).all()


def test_the_second_factor_makes_up_for_the_rounding_of_the_first() -> None:
    W, G = weight(), gram()
    found = quantised_factors(W, G, 8, FOUR)
    exact = low_rank(W, G, 8)
    left, right = (FOUR.quantise(part).dequantise() for part in (exact.left.T, exact.right))
    assert exact.error < found.error < weighted_error(W - left.T @ right, G)


def test_quantised_factors_are_the_values_of_their_codes() -> None:
    found = quantised_factors(weight(), gram(), 6, FOUR, iterations=3)
    assert found.packed is not None
    left, right = (part.dequantise().double() for part in found.packed)
    assert torch.equal(left.T, found.left)
    assert torch.equal(right, found.right)
    assert weighted_error(weight() - left.T @ right, gram()) == pytest.approx(found.error)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 16), st.sampled_from([2, 4, 8]))
def test_more_rounds_of_quantised_factors_are_never_worse(seed: int, rank: int, bits: int) -> None:
    W, G, quantizer = weight(16, 20, seed), gram(20, seed=seed + 1), RoundToNearest(Grid(bits))
    errors = [quantised_factors(W, G, rank, quantizer, iterations).error for iterations in (1, 2, 4)]
    assert errors[0] >= errors[1] >= errors[2]


def test_eight_bits_of_factors_cost_next_to_nothing() -> None:
    W, G = weight(), gram()
    eight = quantised_factors(W, G, 8, RoundToNearest(Grid(8, 32)))
    assert eight.error < 1.02 * low_rank(W, G, 8).error


def test_a_residual_that_is_not_finite_is_refused() -> None:
    W = weight()
    W[3, 4] = float("nan")
    with pytest.raises(NonFinite, match="weight"):
        split(W, None, FOUR, rank=2)


def test_a_gram_matrix_without_data_in_some_directions_is_no_obstacle() -> None:
    G = torch.zeros(32, 32, dtype=torch.float64)
    G[:4, :4] = torch.eye(4, dtype=torch.float64)
    found = split(weight(40, 32), G, TWO, rank=4, iterations=2)
    assert torch.isfinite(found.factors.left).all()
    assert found.error == pytest.approx(0, abs=1e-4)
