import pytest
import torch

from hpo.compress.svd_math import (
    balanced,
    cholesky_root,
    eigen_root,
    factor,
    factor_by_outputs,
    factor_scaled,
    ridged,
    root,
)
from hpo.errors import NonFinite


def test_factors_of_a_diagonal_matrix_are_worked_by_hand() -> None:
    W = torch.diag(torch.tensor([3.0, 1.0, 2.0]))
    left, right, singular = factor(W, None, keep=2)
    assert singular.tolist() == pytest.approx([3, 2, 1])
    expected = torch.diag(torch.tensor([3.0, 0.0, 2.0], dtype=torch.float64))
    assert torch.allclose(left @ right, expected, atol=1e-12)
    assert (left[:, :1] @ right[:1])[0, 0].item() == pytest.approx(3)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
def test_plain_truncation_equals_torch_svd_at_every_rank(shape: tuple[int, int]) -> None:
    W = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, s, vh = torch.linalg.svd(W, full_matrices=False)
    left, right, singular = factor(W, None, keep=6)
    assert torch.allclose(singular, s, atol=1e-7)
    for rank in range(1, 7):
        best = (u[:, :rank] * s[:rank]) @ vh[:rank]
        assert torch.allclose(left[:, :rank] @ right[:rank], best, atol=1e-7)


def test_whitening_changes_which_direction_is_kept() -> None:
    # W is the identity; inputs are large along the second axis only, so rank 1 must keep that one.
    W, X = torch.eye(2, dtype=torch.float64), torch.tensor([[0.1, 0.0], [0.0, 5.0]], dtype=torch.float64)
    left, right, singular = factor(W, X.T @ X, keep=1)
    assert torch.allclose(left @ right, torch.diag(torch.tensor([0.0, 1.0], dtype=torch.float64)), atol=1e-9)
    assert singular.tolist() == pytest.approx([5.0, 0.1], rel=1e-3)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_whitened_truncation_loses_exactly_the_cut_singular_values(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(2)
    W = torch.randn(shape, generator=generator, dtype=torch.float64)
    X = torch.randn(200, shape[1], generator=generator, dtype=torch.float64) * torch.logspace(0, -2, shape[1])
    left, right, singular = factor(W, X.T @ X, keep=6)
    for rank in range(1, 6):
        lost = torch.linalg.norm((W - left[:, :rank] @ right[:rank]) @ X.T)
        assert lost.item() == pytest.approx(float((singular[rank:] ** 2).sum() ** 0.5), rel=1e-3)


def test_whitened_truncation_beats_plain_on_the_outputs_it_is_made_for() -> None:
    generator = torch.Generator().manual_seed(3)
    W = torch.randn(12, 16, generator=generator, dtype=torch.float64)
    X = torch.randn(100, 16, generator=generator, dtype=torch.float64) * torch.logspace(0.5, -1.5, 16)
    errors = {}
    for name, gram in (("plain", None), ("whitened", X.T @ X)):
        left, right, _ = factor(W, gram, keep=4)
        errors[name] = torch.linalg.norm((W - left @ right) @ X.T).item()
    assert errors["whitened"] < errors["plain"]


def test_a_singular_gram_matrix_gets_a_ridge_and_stays_finite() -> None:
    W = torch.randn(20, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    x = torch.ones(1, 8, dtype=torch.float64)
    left, right, singular = factor(W, x.T @ x, keep=4)
    assert torch.isfinite(left).all()
    assert torch.isfinite(right).all()
    assert torch.allclose(left[:, :1] @ right[:1] @ x.T, W @ x.T, atol=1e-2)
    assert (singular[1:] < 0.1 * singular[0]).all()


def test_a_rank_deficient_matrix_gives_no_noise_beyond_its_rank() -> None:
    column = torch.arange(1.0, 11.0, dtype=torch.float64)[:, None]
    left, right, _ = factor(column @ torch.ones(1, 5, dtype=torch.float64), None, keep=3)
    assert torch.allclose(left @ right, column.expand(10, 5), atol=1e-9)
    assert torch.isfinite(left).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(value: float) -> None:
    W = torch.ones(3, 3)
    W[1, 2] = value
    with pytest.raises(NonFinite, match="weight"):
        factor(W, None, keep=1)


def test_balancing_keeps_the_product_and_evens_the_scales() -> None:
    generator = torch.Generator().manual_seed(5)
    left, right = torch.randn(7, 3, generator=generator) * 100, torch.randn(3, 9, generator=generator) / 100
    even_left, even_right = balanced(left, right)
    assert torch.allclose(even_left @ even_right, left @ right, rtol=1e-4, atol=1e-5)
    assert torch.allclose(even_left.T @ even_left, even_right @ even_right.T, rtol=1e-3, atol=1e-4)


def test_factors_by_outputs_are_those_by_inputs() -> None:
    generator = torch.Generator().manual_seed(8)
    W = torch.randn(6, 20, generator=generator, dtype=torch.float64)
    X = torch.randn(100, 20, generator=generator, dtype=torch.float64) * torch.logspace(0, -2, 20)
    G = X.T @ X
    by_inputs = factor(W, G, keep=5)
    by_outputs = factor_by_outputs(W, W @ G @ W.T, float(G.diagonal().mean()), keep=5)
    assert torch.allclose(by_outputs[2], by_inputs[2])
    for rank in range(1, 6):
        products = [left[:, :rank] @ right[:rank] for left, right, _ in (by_inputs, by_outputs)]
        assert torch.allclose(products[0], products[1], atol=1e-8)


def test_outputs_that_are_not_finite_are_refused_by_name() -> None:
    with pytest.raises(NonFinite, match="the outputs of x"):
        factor_by_outputs(torch.ones(2, 3), torch.full((2, 2), torch.nan), 1.0, 1, "x")


def test_scaled_factors_are_worked_by_hand() -> None:
    # Alone, W keeps its 3. Rows weighted by (1, 4) make it 3 and 8, columns by (1, 1/2) back to 3 and 4.
    W = torch.diag(torch.tensor([3.0, 2.0], dtype=torch.float64))
    rows, columns = torch.tensor([1.0, 4.0]), torch.tensor([1.0, 0.5])
    left, right, singular = factor_scaled(W, rows, columns, keep=1)
    assert singular.tolist() == pytest.approx([4, 3])
    assert torch.allclose(left @ right, torch.diag(torch.tensor([0.0, 2.0], dtype=torch.float64)), atol=1e-9)
    left, right, singular = factor_scaled(W, None, columns, keep=1)
    assert singular.tolist() == pytest.approx([3, 1])
    assert torch.allclose(left @ right, torch.diag(torch.tensor([3.0, 0.0], dtype=torch.float64)), atol=1e-9)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_scaled_truncation_equals_the_svd_of_the_scaled_matrix_undone(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(6)
    W = torch.randn(shape, generator=generator, dtype=torch.float64)
    rows = torch.rand(shape[0], generator=generator, dtype=torch.float64) + 0.1
    columns = torch.rand(shape[1], generator=generator, dtype=torch.float64) + 0.1
    u, s, vh = torch.linalg.svd(rows[:, None] * W * columns, full_matrices=False)
    left, right, singular = factor_scaled(W, rows, columns, keep=6)
    assert torch.allclose(singular, s, atol=1e-7)
    for rank in range(1, 7):
        best = (u[:, :rank] * s[:rank]) @ vh[:rank] / rows[:, None] / columns
        assert torch.allclose(left[:, :rank] @ right[:rank], best, atol=1e-6)


def test_column_scales_are_a_diagonal_gram_matrix() -> None:
    generator = torch.Generator().manual_seed(7)
    W = torch.randn(9, 7, generator=generator, dtype=torch.float64)
    columns = torch.rand(7, generator=generator, dtype=torch.float64) + 0.1
    scaled, whitened = factor_scaled(W, None, columns, 4), factor(W, columns.diag() ** 2, 4)
    assert torch.allclose(scaled[0] @ scaled[1], whitened[0] @ whitened[1], atol=1e-4)


def test_channels_that_were_silent_cost_a_little_not_nothing() -> None:
    W = torch.eye(4, dtype=torch.float64)
    left, right, singular = factor_scaled(W, None, torch.tensor([0.0, 1.0, 0.0, 2.0]), keep=4)
    assert torch.allclose(left @ right, W, atol=1e-9)
    assert (singular > 0).all()
    left, right, _ = factor_scaled(W, torch.zeros(4), None, keep=4)
    assert torch.allclose(left @ right, W, atol=1e-9)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (12, 12)])
def test_cholesky_and_eigendecomposition_whiten_to_the_same_minimiser(shape: tuple[int, int]) -> None:
    """SVD-LLM and its V2 differ in the root of G only; the best W' is the same, and it is ours."""
    generator = torch.Generator().manual_seed(8)
    W = torch.randn(shape, generator=generator, dtype=torch.float64)
    X = torch.randn(60, shape[1], generator=generator, dtype=torch.float64) * torch.logspace(0, -1, shape[1])
    G = ridged(X.T @ X)
    lower, spread = cholesky_root(G), eigen_root(G)
    assert lower is not None
    for S in (lower, spread):
        assert torch.allclose(S @ S.T, G, atol=1e-9)
        u, s, vh = torch.linalg.svd(W @ S, full_matrices=False)
        for rank in (1, 3, 5):
            published = torch.linalg.solve(S, (u[:, :rank] * s[:rank]) @ vh[:rank], left=False)
            left, right, singular = factor(W, X.T @ X, rank)
            assert torch.allclose(left @ right, published, atol=1e-6)
            assert torch.allclose(singular, s, atol=1e-5)


def test_a_gram_matrix_that_cholesky_refuses_is_rooted_by_its_eigenvectors() -> None:
    G = torch.diag(torch.tensor([4.0, 0.0, -1e-9], dtype=torch.float64))
    assert cholesky_root(G) is None
    assert torch.allclose(root(G) @ root(G).T, torch.diag(torch.tensor([4.0, 0.0, 0.0])).double(), atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 8), (8, 5)])
def test_directions_without_data_are_kept_last_but_kept(shape: tuple[int, int]) -> None:
    W = torch.randn(shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    X = torch.zeros(3, shape[1], dtype=torch.float64)
    X[:, :2] = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    left, right, _ = factor(W, X.T @ X, keep=5)
    assert torch.allclose(left @ right, W, atol=1e-6)  # at full rank nothing is lost, data or not
    assert torch.allclose((left[:, :2] @ right[:2] - W)[:, :2], torch.zeros(shape[0], 2).double(), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_factored_in_double(dtype: torch.dtype) -> None:
    W = torch.randn(10, 7, generator=torch.Generator().manual_seed(10)).to(dtype)
    left, right, _ = factor(W, None, keep=7)
    assert left.dtype == right.dtype == torch.float64
    assert torch.allclose(left @ right, W.double(), atol=1e-9)


@pytest.mark.parametrize("broken", ["rows", "columns"])
def test_scales_that_are_not_finite_are_refused_by_the_name_of_their_layer(broken: str) -> None:
    bad = torch.tensor([1.0, float("nan"), 1.0])
    rows, columns = (bad, None) if broken == "rows" else (None, bad)
    with pytest.raises(NonFinite, match=rf"{broken[:-1]} scales of blocks\.0\.up\.weight"):
        factor_scaled(torch.eye(3), rows, columns, 2, "blocks.0.up.weight")


def test_a_gram_matrix_that_is_not_finite_is_refused_by_the_name_of_its_layer() -> None:
    with pytest.raises(NonFinite, match=r"Gram matrix of the inputs of blocks\.0\.up\.weight"):
        factor(torch.eye(3), torch.full((3, 3), torch.inf), 2, "blocks.0.up.weight")
