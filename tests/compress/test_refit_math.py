import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hpo.compress.refit_math import refit_left, squared_error
from hpo.compress.svd_math import factor
from hpo.errors import NonFinite


def moments(x_IN: Tensor, y_IN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return X X', Y Y' and X Y'."""
    return x_IN @ x_IN.T, y_IN @ y_IN.T, x_IN @ y_IN.T


def test_a_refit_is_worked_by_hand() -> None:
    # One output, one token each: y = 2 x1 is wanted at x1 = 3, the compressed model gives x1 = 4.
    W, right = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    _, gram, cross = moments(torch.tensor([[3.0], [1.0]]), torch.tensor([[4.0], [0.0]]))
    left = refit_left(W, torch.tensor([[2.0]]), right, gram, cross)
    assert left.item() == pytest.approx(6 / 4, rel=1e-5)


def test_a_refit_is_the_least_squares_solution() -> None:
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    X = torch.randn(8, 50, generator=generator, dtype=torch.float64)
    Y = X + 0.3 * torch.randn(8, 50, generator=generator, dtype=torch.float64)
    old, right, _ = factor(W, X @ X.T, keep=3)
    _, gram, cross = moments(X, Y)
    best = torch.linalg.lstsq((right @ Y).T, (W @ X).T).solution.T
    assert torch.allclose(refit_left(W, old, right, gram, cross), best, atol=1e-4)


def test_the_error_from_moments_is_the_error_of_the_outputs() -> None:
    generator = torch.Generator().manual_seed(1)
    W, left, right, X, Y = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((4, 6), (4, 2), (2, 6), (6, 20), (6, 20))
    )
    own, gram, cross = moments(X, Y)
    expected = float(torch.linalg.norm(W @ X - left @ right @ Y) ** 2)
    assert squared_error(W, left, right, own, gram, cross) == pytest.approx(expected)


@settings(deadline=None, max_examples=40)
@given(
    outs=st.integers(1, 9),
    ins=st.integers(2, 9),
    rank=st.integers(1, 4),
    tokens=st.integers(1, 30),
    noise=st.floats(0, 2),
    seed=st.integers(0, 1000),
)
def test_a_refit_never_makes_the_error_larger(
    outs: int, ins: int, rank: int, tokens: int, noise: float, seed: int
) -> None:
    """Also with fewer tokens than inputs, where the Gram matrix is singular."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    W, X = drawn(outs, ins), drawn(ins, tokens)
    Y = X + noise * drawn(ins, tokens)
    old, right, _ = factor(W, X @ X.T, keep=min(rank, outs, ins))
    own, gram, cross = moments(X, Y)
    new = refit_left(W, old, right, gram, cross)
    before, after = (squared_error(W, left, right, own, gram, cross) for left in (old, new))
    assert torch.isfinite(new).all()
    assert after <= before + 1e-9 * float((W @ X).square().sum() + 1)


def test_without_data_the_factor_stays_as_it_is() -> None:
    left, right, nothing = torch.ones(3, 1), torch.ones(1, 4), torch.zeros(4, 4)
    assert torch.equal(refit_left(torch.ones(3, 4), left, right, nothing, nothing), left.double())


@pytest.mark.parametrize(("which", "named"), [(0, "Gram matrix"), (1, "cross moment")])
def test_moments_that_are_not_finite_are_refused_by_name(which: int, named: str) -> None:
    found = [torch.eye(4), torch.eye(4)]
    found[which][0, 0] = float("inf")
    with pytest.raises(NonFinite, match=rf"{named} .*blocks\.1\.up"):
        refit_left(torch.ones(3, 4), torch.ones(3, 1), torch.ones(1, 4), found[0], found[1], "blocks.1.up")
