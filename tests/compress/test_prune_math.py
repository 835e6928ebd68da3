"""What heads and units are worth, on layers small enough to work out on paper."""

import pytest
import torch

from hpo.compress.prune_math import by_item, fluctuation_scores, lost_mean, standardised, wanda_scores
from hpo.compress.taylor import salience

WEIGHT = torch.tensor([[1.0, -2.0, 0.0], [3.0, 0.5, -1.0]])


def test_a_column_is_worth_its_absolute_weights_times_the_norm_of_its_input() -> None:
    # |1| + |3| = 4, 2.5 and 1, times 2, 10 and 0.
    assert wanda_scores(WEIGHT, torch.tensor([2.0, 10.0, 0.0])).tolist() == [8.0, 25.0, 0.0]


def test_a_column_fluctuates_by_its_squared_norm_times_the_variance_of_its_input() -> None:
    # 1 + 9 = 10, 4.25 and 1, times 0.5, 0 and 3.
    assert fluctuation_scores(WEIGHT, torch.tensor([0.5, 0.0, 3.0])).tolist() == [5.0, 0.0, 3.0]


def test_fluctuation_is_the_error_of_holding_an_input_at_its_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    x_TI = torch.randn(400, 3, generator=generator, dtype=torch.float64) + 5
    held = x_TI.clone()
    held[:, 1] = x_TI[:, 1].mean()
    error = ((held - x_TI) @ WEIGHT.double().T).square().sum(1).mean()
    scores = fluctuation_scores(WEIGHT, x_TI.var(0, correction=0))
    assert float(scores[1]) == pytest.approx(float(error))


def test_standard_scores_have_mean_zero_and_sample_deviation_one() -> None:
    # Mean 4, squares 4 + 0 + 4 over two, deviation 2.
    assert standardised(torch.tensor([2.0, 4.0, 6.0])).tolist() == [-1.0, 0.0, 1.0]
    assert standardised(torch.tensor([3.0, 3.0])).tolist() == [0.0, 0.0]
    assert standardised(torch.tensor([7.0])).tolist() == [0.0]


def test_the_channels_of_an_item_stand_together() -> None:
    assert by_item(torch.arange(6.0), 2).tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_what_is_lost_on_average_is_the_means_through_their_columns() -> None:
    # Column 1 stays; 1 * 2 + 0 * 4 and 3 * 2 - 1 * 4 are lost.
    lost = lost_mean(WEIGHT, torch.tensor([2.0, 100.0, 4.0]), torch.tensor([1]))
    assert lost.tolist() == [2.0, 2.0]
    assert lost.dtype == torch.float64


def test_salience_of_both_orders_is_worked_by_hand() -> None:
    weight, mean, squared = (
        torch.tensor([[2.0, -1.0]]),
        torch.tensor([[3.0, 3.0]]),
        torch.tensor([[1.0, 8.0]]),
    )
    assert salience(weight, mean, squared, "first").tolist() == [[6.0, 3.0]]
    # |6 - 0.5 * 1 * 4| and |-3 - 0.5 * 8 * 1|
    assert salience(weight, mean, squared, "second").tolist() == [[4.0, 7.0]]


def test_the_second_order_says_by_how_much_a_quadratic_loss_changes() -> None:
    # loss = 1.5 w^2 - w at w = 2: slope 5, curvature 3; from 4 to 0 at w = 0.
    weight, slope, curvature = torch.tensor([[2.0]]), torch.tensor([[5.0]]), torch.tensor([[3.0]])
    assert float(salience(weight, slope, curvature, "second")) == 4.0
