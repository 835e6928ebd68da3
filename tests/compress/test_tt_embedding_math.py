"""A table as a tensor train: numbers worked by hand, and truncation against the SVD it must equal."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from hpo.compress.allocate import tail_energy
from hpo.compress.layers import TtTable
from hpo.compress.mpo_math import sliced
from hpo.compress.tt_embedding_math import embedding_cores, places_by_frequency, site_weights, token_counts
from hpo.compress.tt_embedding_plan import TtEmbedding, row_sites, with_bond, within
from hpo.compress.tt_embedding_plan import TtTable as Planned
from hpo.errors import NonFinite, Unsupported

ALL = 10**6


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whole(cores: list[Tensor], vocabulary: int, places: Tensor | None = None) -> Tensor:
    return TtTable(cores, places, vocabulary, "rebuild").whole().detach()


def test_tokens_are_counted_and_stand_by_falling_frequency() -> None:
    counts = token_counts([torch.tensor([1, 2, 1]), torch.tensor([0, 2, 1, 2, 2, 1])], 4)
    assert counts.tolist() == [1, 4, 4, 0]
    # 1 and 2 are equally frequent and keep their order; then 0, and 3, which never occurs.
    assert places_by_frequency(counts).tolist() == [2, 0, 1, 3]


def test_site_weights_are_exact_where_frequencies_factor() -> None:
    # count + 1 is (36, 4, 9, 1): its roots are (6, 2, 3, 1), the products of (2, 1) and (3, 1).
    first, second = site_weights(torch.tensor([35, 3, 8, 0]), (2, 2))
    assert float(first[0] / first[1]) == pytest.approx(2)
    assert float(second[0] / second[1]) == pytest.approx(3)
    assert float(first.prod()) == pytest.approx(1)


def test_without_counts_every_weight_is_one() -> None:
    for weights in site_weights(torch.zeros(12), (3, 4)):
        assert torch.equal(weights, torch.ones_like(weights))


@pytest.mark.parametrize("sites", [2, 3])
@pytest.mark.parametrize("vocabulary", [7, 12, 29])
def test_at_full_bonds_the_table_is_exact_in_any_order_and_with_padding(vocabulary: int, sites: int) -> None:
    table, counts = random(vocabulary, 8), torch.arange(vocabulary) % 5
    rows = row_sites(vocabulary, sites)
    columns = (2, 4) if sites == 2 else (2, 2, 2)
    cores, _ = embedding_cores(table, rows, columns, ALL)
    torch.testing.assert_close(whole(cores, vocabulary), table)
    places = places_by_frequency(counts)
    cores, _ = embedding_cores(table, rows, columns, ALL, places, counts)
    torch.testing.assert_close(whole(cores, vocabulary, places), table)


def test_a_kronecker_product_needs_bonds_of_one() -> None:
    # Row (i, j), column (k, l) is A[i, k] B[j, l]; worked for one entry: A[1, 0] B[2, 1] = 3 * 12 = 36.
    A, B = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[7.0, 8.0], [9.0, 10.0], [11.0, 12.0]])
    table = torch.kron(A, B)
    assert float(table[1 * 3 + 2, 0 * 2 + 1]) == 36
    cores, (spectrum,) = embedding_cores(table, (2, 3), (2, 2), 1)
    assert [core.shape[3] for core in cores] == [1, 1]
    torch.testing.assert_close(whole(cores, 6), table.double())
    assert float(spectrum[0]) == pytest.approx(float(A.norm() * B.norm()))


@pytest.mark.parametrize("bond", [1, 3, 5])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_two_sites_are_cut_as_well_as_any_matrix_of_that_rank(bond: int, is_weighted: bool) -> None:
    """Eckart and Young on the unfolding, which here is weighted by frequencies that factor."""
    table, counts = random(12, 6), torch.zeros(12)
    first, second = torch.tensor([5.0, 2.0, 1.0]), torch.tensor([4.0, 3.0, 2.0, 1.0])
    weights = torch.kron(first, second).double()
    if is_weighted:
        counts = weights**2 - 1
    cores, _ = embedding_cores(table, (3, 4), (2, 3), ALL, None, counts)
    scale = weights if is_weighted else torch.ones(12).double()

    def unfolded(matrix: Tensor) -> Tensor:
        return (matrix * scale[:, None]).reshape(3, 4, 2, 3).transpose(1, 2).reshape(6, 12)

    lost = unfolded(table - whole(sliced(cores, [bond]), 12)).norm()
    best = torch.linalg.svdvals(unfolded(table))[bond:].norm()
    assert float(lost) == pytest.approx(float(best), rel=1e-6)


@pytest.mark.parametrize("bonds", [(2, 3), (4, 2), (3, 7)])
def test_three_sites_lose_no_more_than_the_tails_of_both_cuts(bonds: tuple[int, int]) -> None:
    table = random(24, 8)
    cores, spectra = embedding_cores(table, (2, 3, 4), (2, 2, 2), ALL)
    lost = float((table - whole(sliced(cores, bonds), 24)).norm() / table.norm())
    bound = math.sqrt(sum(tail_energy(s.numpy())[bond] for s, bond in zip(spectra, bonds, strict=True)))
    assert 0 < lost <= bound * (1 + 1e-9)


def test_weights_bring_frequent_tokens_nearer() -> None:
    table, counts = random(64, 8), torch.zeros(64, dtype=torch.long)
    counts[::8] = 1000  # one token in eight is frequent, and they stand far apart
    places = places_by_frequency(counts)
    lost = []
    for order, weights in ((None, None), (places, counts)):
        cores, _ = embedding_cores(table, (8, 8), (2, 4), ALL, order, weights)
        lost.append(float((table - whole(sliced(cores, [8]), 64, order))[::8].norm()))
    assert lost[1] < 0.5 * lost[0]


def test_a_broken_table_is_refused() -> None:
    table = random(6, 4)
    table[2, 1] = math.inf
    with pytest.raises(NonFinite, match="NaN or infinity"):
        embedding_cores(table, (2, 3), (2, 2), ALL)


@pytest.mark.parametrize("vocabulary", [1, 2, 7, 97, 256, 32000, 49152, 50257, 151936])
def test_row_sites_hold_the_vocabulary_with_little_padding(vocabulary: int) -> None:
    for sites in (2, 3):
        found = row_sites(vocabulary, sites)
        assert len(found) == sites
        assert vocabulary <= math.prod(found) <= vocabulary * 1.02 + 1
        assert list(found) == sorted(found)
        assert found[-1] <= 2 * vocabulary ** (1 / sites) + 2


def test_row_sites_of_small_vocabularies() -> None:
    assert row_sites(256, 2) == (16, 16)  # as it is
    assert row_sites(7, 2) == (2, 4)  # one row of padding
    assert row_sites(256, 3) == (4, 8, 8)


def test_costs_of_a_small_table_by_hand() -> None:
    # Cores (1, 2, 2, 2) and (2, 3, 2, 1): 8 + 12 weights for a table of 5 x 4 and a row of padding.
    table = Planned(5, (2, 3), (2, 2), (2,))
    assert (table.parameters, table.dense) == (20, 20)
    assert table.lookup_macs == 2 * 2 * 2  # (2, bond 2) times (bond 2, 2)
    assert table.rebuild_macs == 4 * 2 * 6  # (2 2, bond 2) times (bond 2, 3 2)
    assert table.chain_macs == 2 * 2 * 2 * 2 + 2 * 2 * 2 * 3  # 2 columns to 2 rows by bond 2, then the rest
    tied = TtEmbedding(table, tied=True, is_weighted=True).costs
    assert (tied.parameters, tied.packed_bytes) == (20, 5 * 4)
    assert (tied.macs_per_token, tied.macs_per_call) == (8 + 20, 48)
    alone = TtEmbedding(table, tied=False)
    assert (alone.costs.macs_per_token, alone.costs.macs_per_call) == (8, 0)
    assert (alone.dense_parameters, alone.dense_macs_per_token) == (20, 0)
    both = TtEmbedding(table, tied=False, head=table, contraction="cached")
    assert (both.costs.parameters, both.costs.resident, both.dense_parameters) == (40, 80, 40)
    assert (both.costs.macs_per_token, both.costs.macs_per_call) == (20, 0)


def test_no_bonds_within_the_budget_lose_less() -> None:
    """Brute force over all pairs of bonds."""
    table = random(48, 16) @ torch.diag(0.8 ** torch.arange(16).double())
    rows = row_sites(48, 3)
    _, spectra = embedding_cores(table, rows, (2, 2, 4), ALL)
    tails = [tail_energy(s.numpy()) for s in spectra]
    for keep in (0.15, 0.3, 0.6, 0.9):
        budget = keep * table.numel()
        found = within(budget, 48, 16, tails)
        assert found.parameters <= budget
        best = math.inf
        for bonds in product(range(1, rows[0] * 2 + 1), range(1, rows[2] * 4 + 1)):
            pair = rows[1] * 2
            if bonds[1] > bonds[0] * pair or bonds[0] > bonds[1] * pair:
                continue
            if Planned(48, rows, (2, 2, 4), bonds).parameters <= budget:
                best = min(best, tails[0][bonds[0]] + tails[1][bonds[1]])
        assert tails[0][found.bonds[0]] + tails[1][found.bonds[1]] == pytest.approx(best, rel=1e-9)


def test_two_sites_meet_a_budget_within_one_bond() -> None:
    tails = [np.linspace(1, 0, 200)]
    found = within(0.5 * 1000 * 64, 1000, 64, tails)
    step = with_bond(1000, 64, 2, 1).parameters
    assert 0.5 * 64000 - step < found.parameters <= 0.5 * 64000


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(Unsupported, match="its cores need 12 at least"):
        within(11, 7, 4, [np.ones(5)])
    with pytest.raises(Unsupported, match="allowed: 1 to 4"):
        Planned(6, (2, 3), (2, 2), (5,))
    with pytest.raises(Unsupported, match="must be as large"):
        Planned(7, (2, 3), (2, 2), (1,))
    table = Planned(6, (2, 3), (2, 2), (1,))
    with pytest.raises(Unsupported, match="tied"):
        TtEmbedding(table, tied=True, head=table)


def test_long_prompts_are_worked_off_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    table = random(29, 8)
    cores, _ = embedding_cores(table, row_sites(29, 3), (2, 2, 2), ALL)
    layer = TtTable(cores, None, 29, "chain")
    tokens, hidden = torch.arange(29).reshape(1, 29), random(1, 29, 8, seed=1)
    expected = hidden @ table.T
    with torch.no_grad():
        for at_once in (1, 100, 1 << 22):
            monkeypatch.setattr("hpo.compress.layers.tt_embedding._AT_ONCE", at_once)
            torch.testing.assert_close(layer.look_up(tokens), table[None])
            torch.testing.assert_close(layer.scores(hidden), expected)
