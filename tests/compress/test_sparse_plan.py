from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hpo.compress.encoded_plan import Encoded, encoded
from hpo.compress.grid import Grid
from hpo.compress.layer_plan import Dense, LayerPlan, LowRank
from hpo.compress.layers.forms import empty_packed
from hpo.compress.layers.places import PLACES, empty_places, places_of
from hpo.compress.layers.sparse_packed import SparsePacked
from hpo.compress.mpo_plan import Mpo
from hpo.compress.rounding import RoundToNearest
from hpo.compress.sparse_math import largest
from hpo.compress.sparse_pattern import NOfM, Pattern, Unstructured
from hpo.compress.sparse_plan import Sparse, sparse
from hpo.compress.sparse_quantizer import OfTheRest
from hpo.compress.sparse_store import Layout, Store, index_bytes, place_bits
from hpo.compress.sparsifier import ByActivation, ByMagnitude, BySurgery
from hpo.errors import Unsupported

HALF, TWO_OF_FOUR = Unstructured(0.5), NOfM(2, 4)
RTN = RoundToNearest(Grid(4, 16))


def planned(inner: LayerPlan, pattern: Pattern, store: Store = "dense", weight_bits: int = 32) -> LayerPlan:
    return sparse(inner, ByMagnitude(), pattern, store, weight_bits=weight_bits)


def test_zeros_stored_dense_save_nothing_and_the_plan_says_so() -> None:
    layer = planned(Dense(8, 16), HALF)
    dense = Dense(8, 16).costs
    assert layer.costs == replace(dense, key=layer.costs.key, size="50 % zeros, stored dense")
    assert layer.kind == "sparse"
    assert layer.matrices == ((8, 16),)


@pytest.mark.parametrize(
    ("pattern", "store", "weights", "places"),
    [
        # A bit a weight, a row at a byte of its own: 12 columns take 2 bytes.
        (HALF, "bitmap", 48, 8 * 2),
        (Unstructured(0.7, by_row=True), "bitmap", 8 * (12 - 8), 8 * 2),
        (TWO_OF_FOUR, "bitmap", 48, 8 * 2),
        # 6 places of 2 bits a row: two bytes, four places in each.
        (TWO_OF_FOUR, "n_m", 48, 8 * 2),
        # 3 places a row.
        (NOfM(1, 4), "n_m", 24, 8),
        # Columns in 2 bytes, and 9 numbers of 4 bytes that say where rows begin.
        (HALF, "csr", 48, 48 * 2 + 9 * 4),
        (TWO_OF_FOUR, "csr", 48, 48 * 2 + 9 * 4),
    ],
)
def test_bytes_of_an_8_by_12_layer_are_worked_by_hand(
    pattern: Pattern, store: Store, weights: int, places: int
) -> None:
    costs = planned(Dense(8, 12), pattern, store).costs
    assert costs.parameters == costs.resident == weights
    assert costs.packed_bytes == places
    assert costs.macs_per_token == 8 * 12
    assert costs.size == f"{pattern}, stored as {store}"


def test_groups_of_eight_take_three_bits_a_place() -> None:
    # 4:8 of 64 columns: 32 places of 3 bits, eight in three bytes.
    assert planned(Dense(5, 64), NOfM(4, 8), "n_m").costs.packed_bytes == 5 * 12
    assert [place_bits(group) for group in (2, 4, 5, 8, 9, 16, 17, 64)] == [2, 2, 3, 3, 4, 4, 8, 8]


def test_columns_beyond_two_bytes_are_named_with_four() -> None:
    assert [index_bytes(columns) for columns in (2**15, 2**15 + 1)] == [2, 4]
    mask = torch.zeros(1, 40_000, dtype=torch.bool)
    mask[0, 39_999] = True
    assert torch.equal(places_of(mask, {"store": "csr"}).mask(), mask)


def test_what_would_be_no_smaller_is_held_whole() -> None:
    # At 16 bits a weight, half of them with 2 bytes of a column each are as many bytes as all.
    layer = planned(Dense(8, 12), HALF, "csr", weight_bits=16)
    assert layer == planned(Dense(8, 12), HALF, weight_bits=16)
    assert "stored dense" in layer.costs.size
    assert "stored as csr" in planned(Dense(8, 12), Unstructured(0.9), "csr", weight_bits=16).costs.size


def test_no_zeros_are_no_plan() -> None:
    assert planned(Dense(2, 3), Unstructured(0.05)) == Dense(2, 3)


def test_factors_are_counted_as_the_linear_maps_that_they_are() -> None:
    # Left is 24 x 5 and right 5 x 16: by row 24 * 3 and 5 * 8 weights stay, of 5 and of 16 columns.
    inner = LowRank(24, 16, 5)
    layer = planned(inner, Unstructured(0.5, by_row=True), "bitmap")
    assert layer.costs.parameters == 24 * 3 + 5 * 8
    assert layer.costs.packed_bytes == 24 * 1 + 5 * 2
    assert layer.costs.macs_per_token == inner.costs.macs_per_token
    assert layer.costs.size == "rank 5, 50 % zeros, stored as bitmap"
    assert layer.matrices == ()
    assert planned(inner, HALF).matrices == inner.matrices


def test_a_rank_that_groups_do_not_divide_is_refused() -> None:
    with pytest.raises(Unsupported, match="2:4: groups of 4 do not divide a row of 5"):
        planned(LowRank(24, 16, 5), TWO_OF_FOUR)
    assert planned(LowRank(24, 16, 4), TWO_OF_FOUR).costs.parameters == 4 * 40


def test_a_layer_without_matrices_is_refused() -> None:
    cores = Mpo((4, 4), (4, 4), (2,))
    with pytest.raises(Unsupported, match=r"kind mpo .* has no matrix to set zeros in"):
        planned(cores, HALF)


def test_places_in_groups_need_a_pattern_of_groups() -> None:
    with pytest.raises(Unsupported, match=r"store n_m of a matrix of 50 % zeros[\s\S]*bitmap"):
        planned(Dense(8, 12), HALF, "n_m")


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_a_sparsity_that_is_no_share_is_refused(sparsity: float) -> None:
    with pytest.raises(Unsupported, match="a sparsity of"):
        Unstructured(sparsity)


@pytest.mark.parametrize("text", ["4:4", "0:4", "5:4", "2:65", "2of4", "2:", ":4", "-2:4", "unstructerd"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(Unsupported, match=r"pattern[\s\S]*such as 2:4"):
        NOfM.parsed(text)


def test_one_weight_stays_at_least() -> None:
    assert Unstructured(0.9999).non_zeros(4, 4) == 1
    assert Unstructured(0.9999, by_row=True).non_zeros(4, 4) == 4


def test_sparsities_that_hardly_differ_are_one_plan() -> None:
    assert planned(Dense(8, 16), Unstructured(0.50001)) is planned(Dense(8, 16), Unstructured(0.49998))


def test_keys_tell_plans_apart_and_work_is_the_same_however_it_is_stored() -> None:
    keys = [
        Sparse(inner, sparsifier, pattern, store).costs.key
        for inner in (Dense(8, 16), LowRank(8, 16, 4))
        for sparsifier in (ByMagnitude(), ByActivation(), BySurgery(0.01, 128), BySurgery(0.1, 64))
        for pattern in (HALF, Unstructured(0.5, by_row=True), TWO_OF_FOUR)
        for store in ("dense", "bitmap", "csr")
    ]
    assert len(set(keys)) == len(keys)
    stores: tuple[Store, ...] = ("dense", "bitmap", "n_m", "csr")
    assert len({Sparse(Dense(8, 16), ByMagnitude(), TWO_OF_FOUR, store).work for store in stores}) == 1


def test_what_is_stored_dense_is_rounded_like_any_matrix() -> None:
    layer = encoded(planned(Dense(8, 16), HALF), RTN, weight_bits=32)
    assert layer.costs.packed_bytes == RTN.grid.packed_bytes(8, 16)
    assert layer.costs.parameters == 8 * 16
    assert "stored dense, 4 bits" in layer.costs.size


def test_what_is_stored_sparse_is_rounded_without_its_zeros() -> None:
    # 56 weights stay, in 4 rows of 16 of which the last is half full.
    layer = encoded(planned(Dense(7, 16), HALF, "bitmap"), RTN, weight_bits=32)
    assert isinstance(layer, Encoded)
    assert layer.costs.packed_bytes == 7 * 2 + RTN.grid.packed_bytes(4, 16)
    assert layer.costs.parameters == 56
    assert layer.costs.resident == 0
    assert layer.costs.macs_per_token == 7 * 16
    assert layer.costs.size == "50 % zeros, stored as bitmap, 4 bits in groups of 16"


def test_how_zeros_were_chosen_is_told_apart_in_few_bits_too() -> None:
    keys = {
        encoded(
            sparse(Dense(8, 16), BySurgery(damping, 128), HALF, "bitmap", weight_bits=32), RTN, weight_bits=32
        ).costs.key
        for damping in (0.01, 0.1)
    }
    assert len(keys) == 2


def test_a_correction_is_of_the_whole_matrix() -> None:
    layer = encoded(planned(Dense(32, 64), HALF, "bitmap"), RTN, 3, weight_bits=32)
    assert layer.costs.resident == 3 * (32 + 64)


def test_factors_that_are_stored_sparse_are_not_put_into_few_bits() -> None:
    with pytest.raises(
        Unsupported, match=r"kind sparse \(rank 5, 50 % zeros, stored as bitmap\) has no matrix"
    ):
        encoded(planned(LowRank(24, 16, 5), HALF, "bitmap"), RTN, weight_bits=32)


def masks(rows: int, columns: int, pattern: Pattern, seed: int) -> Tensor:
    drawn = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))
    return largest(drawn, pattern)


PATTERNS = [HALF, Unstructured(0.83), Unstructured(0.3, by_row=True), TWO_OF_FOUR, NOfM(1, 2), NOfM(5, 12)]


@pytest.mark.parametrize("store", PLACES)
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 9),
    groups=st.integers(1, 5),
    pattern=st.sampled_from(PATTERNS),
    seed=st.integers(0, 99),
)
def test_places_come_back_in_the_bytes_that_the_plan_says(
    store: Store, rows: int, groups: int, pattern: Pattern, seed: int
) -> None:
    columns = 12 * groups if isinstance(pattern, NOfM) else 7 * groups
    if store == "n_m" and not isinstance(pattern, NOfM):
        return
    mask, how = masks(rows, columns, pattern, seed), Layout(store, pattern)
    size = how.size(rows, columns)
    held = places_of(mask, size)
    assert torch.equal(held.mask(), mask)
    assert held.size() == size
    state = held.state_dict()
    assert sum(t.numel() * t.element_size() for t in state.values()) == how.held_bytes(rows, columns)
    assert not any(t.is_floating_point() for t in state.values())
    loaded = empty_places(size)
    loaded.load_state_dict(state)
    assert torch.equal(loaded.mask(), mask)
    values = torch.arange(1.0, int(mask.sum()) + 1)
    whole = loaded.spread(values)
    assert torch.equal(whole[mask], values)
    assert (whole[~mask] == 0).all()


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_a_sparse_matrix_in_few_bits_keeps_its_zeros_and_its_places(pattern: Pattern) -> None:
    weight = torch.randn(6, 48, generator=torch.Generator().manual_seed(3))
    mask = largest(weight.abs(), pattern)
    weight = torch.where(mask, weight, 0)
    quantizer = OfTheRest(Layout("bitmap", pattern), RTN, "magnitude")
    packed = quantizer.quantise(weight)
    found = packed.dequantise()
    assert (found[~mask] == 0).all()
    assert torch.linalg.norm(found - weight) < 0.15 * torch.linalg.norm(weight)
    size = quantizer.format.size(6, 48)
    assert packed.size() == size
    loaded = empty_packed(size)
    assert isinstance(loaded, SparsePacked)
    loaded.load_state_dict(packed.state_dict())
    assert torch.equal(loaded.dequantise(), found)
    buffers = list(packed.buffers())
    assert sum(b.numel() * b.element_size() for b in buffers) == quantizer.format.packed_bytes(6, 48)
    assert sum(m.packed_weights for m in (packed, packed.values)) == quantizer.format.weights(6, 48)


def test_weights_that_stay_but_are_zero_are_counted() -> None:
    weight = torch.zeros(4, 16)
    weight[0, 0] = 1.0
    packed = OfTheRest(Layout("bitmap", HALF), RTN, "magnitude").quantise(weight)
    assert packed.places.count == 32
    assert torch.equal(packed.dequantise() != 0, weight != 0)
