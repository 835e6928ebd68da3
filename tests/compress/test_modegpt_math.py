"""Which units are kept, and how the next layer makes up for the rest: by hand, then against brute force."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from hpo.compress import modegpt_math
from hpo.compress.modegpt_math import (
    centred,
    elimination_order,
    leverage_order,
    losses_in_order,
    output_energy,
    refit,
    refit_kept,
    score_losses,
    value_encoder,
)
from hpo.errors import NonFinite


def matrix(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(count: int, width: int, seed: int) -> Tensor:
    """Return inputs (count, width) of which some are nearly mixtures of others."""
    mixing = drawn(width, width, seed=seed) * torch.logspace(0, -1, width, dtype=torch.float64)
    return drawn(count, width, seed=seed + 1) @ mixing.T


def lost(weight_OI: Tensor, x_NI: Tensor, fitted_OK: Tensor, kept_K: Tensor) -> float:
    return float((x_NI @ weight_OI.T - x_NI[:, kept_K] @ fitted_OK.T).square().sum())


def test_nystrom_of_two_units_is_worked_by_hand() -> None:
    # G = [[2, 1], [1, 2]]: where unit 0 is h, unit 1 is expected at h / 2. Keeping unit 0 alone, the
    # weights 3 and 4 become 3 + 4 / 2 = 5; keeping unit 1 alone, 4 + 3 / 2 = 5.5.
    G, W = matrix([2, 1], [1, 2]), matrix([3, 4])
    assert refit_kept(W, G, torch.tensor([0])).item() == pytest.approx(5, rel=1e-5)
    assert refit_kept(W, G, torch.tensor([1])).item() == pytest.approx(5.5, rel=1e-5)
    # What is lost: 4^2 times the variance of unit 1 given unit 0, 2 - 1 / 2; or 3^2 times the same.
    assert losses_in_order(W, G, torch.tensor([0, 1]))[1].item() == pytest.approx(24, rel=1e-5)
    assert losses_in_order(W, G, torch.tensor([1, 0]))[1].item() == pytest.approx(13.5, rel=1e-5)


def test_nystrom_of_three_units_is_worked_by_hand() -> None:
    # Unit 2 is the sum of the other two, which have nothing in common: its weight goes to both.
    G, W = matrix([1, 0, 1], [0, 4, 4], [1, 4, 5]), matrix([1, 2, 10], [0, 0, 1])
    expected = matrix([11, 12], [1, 1])
    assert torch.allclose(refit_kept(W, G, torch.tensor([0, 1])), expected, rtol=1e-4)
    # Kept in another order, the columns follow.
    assert torch.allclose(refit_kept(W, G, torch.tensor([1, 0])), expected.flip(1), rtol=1e-4)


def test_leverage_of_three_units_is_worked_by_hand() -> None:
    # Units 0 and 1 are the same, unit 2 stands alone: G = [[1, 1, 0], [1, 1, 0], [0, 0, 1]], ridge 0.1.
    # Scores: of a pair with eigenvalues 2 and 0 each half of 2 / 2.1, of the single one 1 / 1.1.
    order = leverage_order(matrix([1, 1, 0], [1, 1, 0], [0, 0, 1]))
    assert order[0] == 2


def test_elimination_spares_a_small_unit_that_no_other_can_stand_in_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Units 0 and 1 are the same and large, unit 2 is small and alone. One of the pair goes first, at no
    # cost; then the other carries the weight of both, so unit 2 goes.
    monkeypatch.setattr(modegpt_math, "ROUNDS", 3)
    G, W = matrix([9, 9, 0], [9, 9, 0], [0, 0, 1]), matrix([1, 1, 1])
    order = elimination_order(W, G).tolist()
    assert order[1] == 2
    assert {order[0], order[2]} == {0, 1}


def test_elimination_finds_one_of_the_best_of_all_selections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modegpt_math, "ROUNDS", 8)
    for seed in range(4):
        X, W = inputs(60, 8, seed), drawn(5, 8, seed=seed + 50)
        G = X.T @ X
        every = [torch.tensor(c) for c in combinations(range(8), 4)]
        losses = [lost(W, X, refit_kept(W, G, kept), kept) for kept in every]
        kept = elimination_order(W, G)[:4]
        found = lost(W, X, refit_kept(W, G, kept), kept)
        assert sum(loss < found for loss in losses) <= 10  # of 70


@pytest.mark.parametrize("order_of", ["leverage", "elimination"])
def test_orders_hold_every_unit_once(order_of: str) -> None:
    X, W = inputs(200, 90, 1), drawn(7, 90)
    G = X.T @ X
    order = leverage_order(G) if order_of == "leverage" else elimination_order(W, G)
    assert sorted(order.tolist()) == list(range(90))


def test_the_losses_in_an_order_are_those_of_refitting_every_beginning() -> None:
    X, W = inputs(100, 9, 3), drawn(4, 9, seed=4)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(5))
    losses = losses_in_order(W, X.T @ X, order)
    for keep in range(1, 9):
        kept = order[:keep]
        found = lost(W, X, refit_kept(W, X.T @ X, kept), kept)
        assert found == pytest.approx(float(losses[keep:].sum()), rel=0.02)  # the ridge


def test_no_other_weights_do_better_than_the_refitted_ones() -> None:
    X, W, E = inputs(100, 8, 6), drawn(3, 8, seed=7), drawn(5, 8, seed=8)
    expected = torch.linalg.lstsq(X @ E.T, X @ W.T).solution.T
    assert torch.allclose(refit(W, X.T @ X, E), expected, rtol=1e-3, atol=1e-3)
    picks = torch.eye(8, dtype=torch.float64)[[4, 1, 6]]
    by_index = refit_kept(W, X.T @ X, torch.tensor([4, 1, 6]))
    assert torch.allclose(refit(W, X.T @ X, picks), by_index, rtol=1e-9)


def test_refitting_to_a_change_of_basis_loses_nothing_even_without_data() -> None:
    X, W = inputs(3, 8, 9), drawn(4, 8, seed=10)  # three inputs: a singular Gram matrix
    E = torch.linalg.qr(drawn(8, 8, seed=11)).Q
    assert torch.allclose(refit(W, X.T @ X, E) @ E, W, atol=1e-6)
    assert torch.allclose(refit_kept(W, X.T @ X, torch.arange(8)), W, atol=1e-6)


def test_a_gram_matrix_that_rounding_made_indefinite_is_borne() -> None:
    G = matrix([1, 1, 0], [1, 1, 0], [0, 0, 1]) - 1e-3 * torch.eye(3, dtype=torch.float64)
    assert torch.isfinite(refit_kept(matrix([1, 1, 1]), G, torch.tensor([0, 1]))).all()
    assert sorted(leverage_order(G).tolist()) == [0, 1, 2]


def test_units_that_are_always_zero_are_dropped_first() -> None:
    X = inputs(50, 6, 12)
    X[:, [1, 4]] = 0
    assert set(elimination_order(drawn(3, 6), X.T @ X)[-2:].tolist()) == {1, 4}
    assert set(leverage_order(X.T @ X)[-2:].tolist()) == {1, 4}
    nothing = torch.zeros(6, 6)
    assert sorted(elimination_order(drawn(3, 6), nothing).tolist()) == list(range(6))


def test_the_energy_of_outputs_is_worked_by_hand() -> None:
    # Inputs 1 and 3 (their sum of squares is 10, their sum 4): y = 2x + 1 gives 3 and 7, so 9 + 49.
    G, W, b = matrix([10]), matrix([2]), torch.tensor([1.0])
    assert output_energy(W, G, b, torch.tensor([4.0]), 2).tolist() == [58]
    assert output_energy(W, G, None, None, 2).tolist() == [40]
    # Less their mean, 2, the inputs are -1 and 1.
    assert centred(G, torch.tensor([4.0]), 2).tolist() == [[2]]


def test_column_selection_is_worked_by_hand() -> None:
    # Two query heads share a key head of four dimensions: norms of queries 5, 2, 1, 1 (with 3 and 4 in the
    # first), of keys 1, 2, 3, 0.
    queries, keys = matrix([9, 4, 0, 1], [16, 0, 1, 0]), torch.tensor([1.0, 4.0, 9.0, 0.0])
    assert score_losses(queries, keys, None).tolist() == pytest.approx([5, 4, 3, 0])
    # As rotary pairs (0, 2) and (1, 3): roots of 26 * 10 and of 5 * 4.
    pairs = torch.tensor([[0, 2], [1, 3]])
    assert score_losses(queries, keys, pairs).tolist() == pytest.approx([260**0.5, 20**0.5])


def test_the_encoder_of_a_value_head_is_worked_by_hand() -> None:
    # The output layer reads both dimensions alike; the second carries four times the first, so it is kept.
    W, G = torch.eye(2, dtype=torch.float64)[None], matrix([1, 0], [0, 16])[None]
    encoder, spared = value_encoder(W, G)
    assert spared.tolist() == pytest.approx([16, 1], rel=1e-4)
    assert encoder[0].abs().tolist() == pytest.approx([0, 1], abs=1e-9)
    # Where the output layer reads the first ten times as much, that one is.
    encoder, spared = value_encoder(matrix([10, 0], [0, 1])[None], G)
    assert spared.tolist() == pytest.approx([100, 16], rel=1e-4)
    assert encoder[0].abs().tolist() == pytest.approx([1, 0], abs=1e-9)


def test_the_encoder_of_one_head_is_the_best_of_its_rank() -> None:
    X, W = inputs(100, 6, 13), drawn(9, 6, seed=14)
    encoder, spared = value_encoder(W[None], (X.T @ X)[None])
    assert torch.allclose(encoder @ encoder.T, torch.eye(6, dtype=torch.float64), atol=1e-9)
    singular = torch.linalg.svdvals(X @ W.T)
    for rank in range(1, 6):
        E = encoder[:rank]
        found = (X @ W.T - X @ E.T @ refit(W, X.T @ X, E).T).square().sum()
        best = float(singular[rank:].square().sum())
        assert float(found) == pytest.approx(best, rel=0.02)  # the ridge
        assert float(spared[rank:].sum()) == pytest.approx(best, rel=0.02)


def test_heads_that_share_values_are_encoded_together() -> None:
    # Two query heads mix the same values alike; one reads the first dimension, the other the second, more.
    W = torch.stack([matrix([1, 0]), matrix([0, 3])])
    same = matrix([1, 0], [0, 1])
    encoder, spared = value_encoder(W, torch.stack([same, same]))
    assert encoder[0].abs().tolist() == pytest.approx([0, 1], abs=1e-9)
    assert spared.tolist() == pytest.approx([18, 2], rel=1e-4)


def test_what_is_not_finite_is_refused_by_name() -> None:
    broken = matrix([1, 0], [0, float("nan")])
    with pytest.raises(NonFinite, match=r"block 3"):
        leverage_order(broken, "block 3")
    with pytest.raises(NonFinite, match=r"down_proj holds NaN"):
        elimination_order(broken, torch.eye(2), "down_proj")
    with pytest.raises(NonFinite, match=r"inputs of o_proj"):
        refit(matrix([1, 1]), broken, torch.eye(2), "o_proj")
    with pytest.raises(NonFinite, match="positive definite"):
        refit_kept(matrix([1, 1]), -torch.eye(2), torch.tensor([0]))
