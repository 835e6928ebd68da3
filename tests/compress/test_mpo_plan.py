"""Costs and bonds of matrix product operators; nothing is run."""

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.compress.allocate import tail_energy
from hpo.compress.mpo_bonds import Split, bonds_for_budget, bonds_for_ratio, bonds_for_threshold, largest_bond
from hpo.compress.mpo_plan import Mpo, basis_name, bond_caps, mpo, parameters_of
from hpo.compress.mpo_sites import RULES, sites_of
from hpo.errors import Unsupported

LLAMA_7B = ((4096, 4096), (4096, 4096), (11008, 4096), (4096, 11008))


def test_costs_of_merged_execution_are_worked_by_hand() -> None:
    layer = Mpo((2, 2, 3), (2, 2, 2), (3, 4), "merged")
    # Cores of 1x2x2x3, 3x2x2x4 and 4x3x2x1. Merged after the first: 12 outputs x 8 inputs with bond 3,
    # 4 inputs left x 2x2x3, then 2 outputs done x bond 3 x (6x4). Merged after the second: bond 4,
    # 2 inputs left x 4x4x4, then 4 outputs done x bond 4 x (3x2).
    assert layer.cut == 1
    assert layer.costs.macs_per_token == 4 * 12 + 2 * 3 * 24
    assert layer.costs.macs_per_call == 3 * 2 * 2 * 4 * 3 * 2
    assert layer.costs.parameters == 12 + 48 + 24
    assert Mpo((2, 2, 3), (2, 2, 2), (3, 4), "chain").costs.macs_per_token == 4 * 12 + 2 * 2 * 48 + 4 * 24


def test_two_sites_merge_to_themselves() -> None:
    merged, chained = (Mpo((4, 6), (6, 4), (5,), how).costs for how in ("merged", "chain"))
    assert (merged.macs_per_token, merged.macs_per_call) == (chained.macs_per_token, 0)


def test_merging_four_sites_saves_most_of_a_chain() -> None:
    chained, merged = (mpo(4096, 4096, 4, 128, how).costs for how in ("chain", "merged"))
    # The ratio to the dense layer's operations, which methods.md works out as 32 and 4.
    assert chained.macs_per_token / 4096**2 == pytest.approx(32, rel=0.1)
    assert merged.macs_per_token / 4096**2 == pytest.approx(4, rel=0.1)


def test_a_skewed_chain_costs_about_two_operations_a_weight() -> None:
    costs = mpo(4096, 4096, 2, 400, "chain", factorisation="skewed").costs
    assert costs.macs_per_token == 2 * costs.parameters
    assert costs.macs_per_token < 4096**2


@pytest.mark.parametrize(
    ("out_sites", "in_sites", "bonds", "allowed"),
    [
        ((4, 4), (3, 4), (13,), "allowed: 1 to 12"),
        ((4, 4), (3, 4), (0,), "allowed: 1 to 12"),
        ((2, 2, 4), (2, 2, 4), (1, 9), "allowed: 1 to 4"),  # 16 at this cut, but a bond of 1 before it
        ((4, 4), (3, 4), (2, 2), "one bond fewer"),
        ((4, 4), (3, 2, 2), (2,), "as many in as out"),
        ((16,), (12,), (), "2 to 4 sites"),
        ((0, 4), (3, 4), (2,), "sites of 1 and more"),
    ],
)
def test_a_hand_written_plan_that_does_not_fit_is_refused(
    out_sites: tuple[int, ...], in_sites: tuple[int, ...], bonds: tuple[int, ...], allowed: str
) -> None:
    with pytest.raises(Unsupported, match=allowed):
        Mpo(out_sites, in_sites, bonds)


def test_plans_of_other_weights_have_other_keys_and_say_what_they_are() -> None:
    plain = Mpo((4, 4), (3, 4), (5,))
    variants = [
        Mpo((4, 4), (3, 4), (4,)),
        Mpo((4, 4), (4, 3), (5,)),
        Mpo((4, 4), (3, 4), (5,), sweeps=1),
        Mpo((4, 4), (3, 4), (5,), neurons="reordered"),
        Mpo((4, 4), (3, 4), (5,), "chain"),
    ]
    assert len({layer.costs.key for layer in (plain, *variants)}) == 6
    assert Mpo((4, 4), (3, 4), (5,), neurons="stored").costs.key == plain.costs.key
    swept = Mpo((4, 4), (3, 4), (5,), sweeps=2, neurons="reordered")
    assert swept.costs.size == "bonds 5 on 4x4 by 3x4, 2 sweeps, neurons reordered"
    assert Mpo((4, 4), (3, 4), (5,), neurons="stored").costs.size.endswith("neurons as stored")


def test_names_of_preparations_are_fit_for_a_path() -> None:
    assert basis_name(2, "8x4:4x8, 6x8:8x4") == "mpo2-8x4by4x8-6x8by8x4"
    assert basis_name(3, "skewed", reordered=True) == "mpo3-skewed-reordered"


@given(
    st.sampled_from([(32, 32), (48, 32), (128, 352), (96, 120), (35, 66)]),
    st.integers(2, 4),
    st.sampled_from(RULES),
    st.floats(0.02, 0.98),
)
def test_a_budget_buys_the_largest_even_bond_and_is_spent(
    shape: tuple[int, int], sites: int, rule: str, share: float
) -> None:
    split = sites_of(*shape, sites, rule)
    budget, caps = int(share * prod(shape)), bond_caps(*split)
    bonds = bonds_for_budget(split, budget, max(caps))
    spent = parameters_of(*split, bonds)
    assert spent <= budget or set(bonds) == {1}
    even = max(
        [b for b in range(1, max(caps) + 1) if parameters_of(*split, [min(b, c) for c in caps]) <= budget],
        default=1,
    )
    assert all(bond >= min(even, cap) for bond, cap in zip(bonds, caps, strict=True))
    Mpo(*split, bonds)  # every bond is one that its neighbours can feed
    if spent <= budget:
        for k, bond in enumerate(bonds):
            raised = (*bonds[:k], bond + 1, *bonds[k + 1 :])
            try:
                Mpo(*split, raised)
            except Unsupported:
                continue
            assert parameters_of(*split, raised) > budget


@pytest.mark.parametrize("keep", [0.15, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("sites", [2, 3, 4])
@pytest.mark.parametrize("rule", RULES)
def test_keep_ratio_is_met_within_half_a_per_cent_on_a_7b_shaped_model(
    keep: float, sites: int, rule: str
) -> None:
    shapes = LLAMA_7B * 8
    splits = [sites_of(*shape, sites, rule) for shape in shapes]
    largest = [largest_bond(*shape, sites, rule) for shape in shapes]
    bonds = bonds_for_ratio(keep, splits, largest)
    held = sum(parameters_of(*split, each) for split, each in zip(splits, bonds, strict=True))
    total = sum(map(prod, shapes))
    assert keep - 0.005 <= held / total <= keep


def test_what_single_layers_leave_of_a_budget_goes_to_others() -> None:
    # One more bond costs 8 + 8 weights of 64, so 0.4 (25.6 weights) buys bond 1 and leaves 9.6 a layer.
    split: Split = ((2, 4), (4, 2))
    bonds = bonds_for_ratio(0.4, [split] * 5, [8] * 5)
    assert bonds == [(2,), (2,), (2,), (1,), (1,)]  # 3 x 16 of the 48 left


def test_a_threshold_is_met_at_every_cut_by_hand() -> None:
    split: Split = ((2, 2, 4), (2, 2, 4))
    tails = [tail_energy(np.array([2.0, 1.0, 1.0, 0.0])), tail_energy(np.array([3.0, 1.0, 0.0, 0.0]))]
    # Energies 4, 1, 1 of 6 and 9, 1 of 10: 0.8 needs two at the first cut and one at the second.
    assert bonds_for_threshold(split, tails, 0.8, 99) == (2, 1)
    assert bonds_for_threshold(split, tails, 1.0, 99) == (3, 2)
    assert bonds_for_threshold(split, tails, 1.0, 2) == (2, 2)
    assert bonds_for_threshold(split, tails, 0.5, 99) == (1, 1)


def test_a_bond_that_its_neighbours_cannot_feed_is_lowered() -> None:
    split: Split = ((2, 1, 8), (2, 1, 8))
    flat = tail_energy(np.ones(4))
    assert bonds_for_threshold(split, [tail_energy(np.array([1.0, 0, 0, 0])), flat], 0.99, 99) == (1, 1)
