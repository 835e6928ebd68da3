"""Shares of a keep ratio by curves of what weights are worth; nothing is run."""

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.compress.mpo_adapted import Curve, adapted_bonds
from hpo.compress.mpo_bonds import Bonds, Split, bonds_for_ratio, largest_bond
from hpo.compress.mpo_plan import Mpo, parameters_of
from hpo.compress.mpo_sites import RULES, sites_of
from hpo.errors import Unsupported

LLAMA_7B = ((4096, 4096), (4096, 4096), (11008, 4096), (4096, 11008))

SPLIT: Split = ((2, 4), (4, 2))
"""A layer of 64 weights, whose cores hold 16 a bond; 3 bonds save weights."""


def curve(price: float, decay: float = 4.0, dense: int = 64) -> Curve:
    """Return divergences that fall by a constant factor a weight."""
    weights = tuple(share * dense for share in (0.0, 0.1, 0.25, 0.5, 0.8))
    return Curve(weights, tuple(price * float(np.exp(-decay * w / dense)) for w in weights), dense)


def held(splits: list[Split], bonds: list[Bonds]) -> int:
    return sum(parameters_of(*split, each) for split, each in zip(splits, bonds, strict=True))


def test_a_budget_goes_to_the_layer_that_gains_most_worked_by_hand() -> None:
    # Half of 128 weights is 4 bonds of 16; each layer keeps a quarter of its weights whatever comes.
    assert adapted_bonds(0.5, [curve(1.0), curve(0.01)], [SPLIT] * 2, [3] * 2) == [(3,), (1,)]
    assert adapted_bonds(0.5, [curve(0.01), curve(1.0)], [SPLIT] * 2, [3] * 2) == [(1,), (3,)]
    # At 0.7 of 128 there are five bonds: the dear layer is full, and the rest is for the other.
    assert adapted_bonds(0.7, [curve(0.01), curve(1.0)], [SPLIT] * 2, [3] * 2) == [(2,), (3,)]


def test_gains_a_weight_decide_not_gains_a_layer() -> None:
    """Two layers of one price, the second with four times the weights: the budget buys less there."""
    large: Split = ((4, 4), (4, 4))
    curves = [curve(1.0), curve(1.0, dense=256)]
    # 128 of 320 weights: where each keeps the same share, the small layer gains four times as much a weight.
    assert adapted_bonds(0.4, curves, [SPLIT, large], [3, 7]) == [(2,), (3,)]
    # Two bonds are half of its weights, three are 3/8 of the large one's.


def test_layers_of_one_curve_get_equal_bonds() -> None:
    splits = [sites_of(128, 128, 3)] * 6
    largest = [largest_bond(128, 128, 3)] * 6
    for keep in (0.2, 0.5, 0.8):
        adapted = adapted_bonds(keep, [curve(0.3, dense=128 * 128)] * 6, splits, largest)
        equal = bonds_for_ratio(keep, splits, largest)
        apart = np.abs(np.array(adapted, dtype=int) - np.array(equal, dtype=int))
        assert apart.max() <= 1


def test_what_is_not_convex_is_bought_whole_or_not_at_all() -> None:
    """Nothing is gained before 40 weights, and then everything: the pieces before are steps on the way."""
    late = Curve((0.0, 39.0, 40.0, 48.0), (1.0, 1.0, 0.01, 0.01), 64)
    steady = curve(0.8, decay=1.0)
    # From 16 weights on, the late layer gains 0.99 for 24, the steady one 0.1 for every bond.
    assert adapted_bonds(0.5, [late, steady], [SPLIT] * 2, [3] * 2) == [(3,), (1,)]


def test_a_curve_that_noise_lets_rise_is_taken_as_flat_there() -> None:
    noisy = Curve((0.0, 16.0, 32.0, 48.0), (0.1, 0.02, 0.03, 0.001), 64)
    flat = Curve((0.0, 16.0, 32.0, 48.0), (0.1, 0.02, 0.02, 0.001), 64)
    for keep in (0.3, 0.5, 0.7):
        ways = [adapted_bonds(keep, [each, curve(0.1)], [SPLIT] * 2, [3] * 2) for each in (noisy, flat)]
        assert ways[0] == ways[1]


def test_a_layer_that_does_not_matter_keeps_half_of_the_common_share() -> None:
    splits, largest = [sites_of(128, 128, 2)] * 4, [largest_bond(128, 128, 2)] * 4
    curves = [curve(1e-9, dense=128 * 128), *[curve(1.0, dense=128 * 128)] * 3]
    bonds = adapted_bonds(0.6, curves, splits, largest)
    share = parameters_of(*splits[0], bonds[0]) / (128 * 128)
    assert 0.3 - 0.02 <= share <= 0.3 + 0.02  # 0.02: a bond


def test_a_layer_that_cores_would_not_make_smaller_counts_as_dense() -> None:
    prime = sites_of(7, 7, 2)  # 1x7 by 1x7: one bond holds 1 + 49 weights
    splits = [prime, SPLIT, SPLIT]
    bonds = adapted_bonds(0.6, [curve(9.0, dense=49), curve(0.1), curve(0.1)], splits, [1, 3, 3])
    assert bonds[0] == (1,)
    # 0.6 of 177 weights, 49 of them spent, are three bonds of 16.
    assert sorted(bonds[1:]) == [(1,), (2,)]


@pytest.mark.parametrize(
    ("weights", "divergences", "named"),
    [
        ((1.0, 2.0), (1.0, 0.5), "ascending from 0"),
        ((0.0, 2.0, 2.0), (1.0, 0.5, 0.1), "ascending from 0"),
        ((0.0,), (1.0,), "two or more"),
        ((0.0, 2.0), (1.0, 0.0), "each one above 0"),
        ((0.0, 2.0), (1.0,), "each one above 0"),
    ],
)
def test_a_curve_that_is_none_is_refused(
    weights: tuple[float, ...], divergences: tuple[float, ...], named: str
) -> None:
    with pytest.raises(Unsupported, match=named):
        Curve(weights, divergences, 64)


def test_a_ratio_too_small_gives_bonds_of_one() -> None:
    assert adapted_bonds(0.01, [curve(1.0), curve(0.1)], [SPLIT] * 2, [3] * 2) == [(1,), (1,)]


def test_a_ratio_that_is_more_than_cores_can_hold_gives_the_largest_bonds() -> None:
    assert adapted_bonds(0.99, [curve(1.0), curve(0.1)], [SPLIT] * 2, [3] * 2) == [(3,), (3,)]


@pytest.mark.parametrize("keep", [0.15, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("sites", [2, 3, 4])
@pytest.mark.parametrize("rule", RULES)
def test_keep_ratio_is_met_within_half_a_per_cent_on_a_7b_shaped_model(
    keep: float, sites: int, rule: str
) -> None:
    rng, shapes = np.random.default_rng(sites), LLAMA_7B * 8
    curves = [curve(rng.uniform(0.001, 1), rng.uniform(1, 9), prod(shape)) for shape in shapes]
    splits = [sites_of(*shape, sites, rule) for shape in shapes]
    largest = [largest_bond(*shape, sites, rule) for shape in shapes]
    bonds = adapted_bonds(keep, curves, splits, largest)
    total = sum(map(prod, shapes))
    assert keep - 0.005 <= held(splits, bonds) / total <= keep
    assert len(set(bonds)) > len(set(LLAMA_7B))  # layers of one shape have bonds of their own


@given(
    st.sampled_from([(32, 32), (48, 32), (128, 352), (35, 66), (31, 64)]),
    st.integers(2, 4),
    st.sampled_from(RULES),
    st.floats(0.02, 0.98),
    st.lists(st.floats(1e-6, 1), min_size=3, max_size=3),
)
def test_bonds_are_such_as_neighbours_can_feed_and_spend_the_budget(
    shape: tuple[int, int], sites: int, rule: str, keep: float, prices: list[float]
) -> None:
    split, most = sites_of(*shape, sites, rule), largest_bond(*shape, sites, rule)
    splits = [split] * len(prices)
    curves = [curve(price, dense=prod(shape)) for price in prices]
    bonds = adapted_bonds(keep, curves, splits, [most] * len(prices))
    for each in bonds:
        Mpo(*split, each)
        assert max(each) <= most
    least = held(splits, [(1,) * (sites - 1)] * len(prices))
    assert held(splits, bonds) <= max(keep * prod(shape) * len(prices), least)
