import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hpo.compress import kmeans_math
from hpo.compress.kmeans_math import nearest, row_means
from hpo.compress.layers.codebook import NormalLevels
from hpo.compress.layers.forms import empty_packed
from hpo.compress.layers.packed import unpack
from hpo.compress.layers.tables import Flat, Tabled
from hpo.compress.row_tables import RowTables
from hpo.compress.squeezellm import SqueezeLlmQuantizer, set_aside
from hpo.errors import NonFinite, Unsupported

FORMS = [
    RowTables(bits, outliers, sensitive)
    for bits in (2, 3, 4)
    for outliers, sensitive in ((0.0, 0.0), (0.02, 0.0), (0.05, 0.05))
]


def gaussian(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quantised(weight: Tensor, form: RowTables, gram: Tensor | None = None) -> Tabled:
    return SqueezeLlmQuantizer(form).quantise(weight, gram)


def gram_of(mean_squares: Tensor) -> Tensor:
    return torch.diag(mean_squares)


def cost(values_RC: Tensor, weights_RC: Tensor, means_RK: Tensor) -> Tensor:
    """Return what each row costs with these means, (R,)."""
    error = values_RC - means_RK.gather(1, nearest(values_RC, means_RK))
    return (weights_RC * error.square()).sum(1)


def least_cost(values: Tensor, weights: Tensor, count: int) -> float:
    """Return the cost of the best means of one short row: every way to cut it in order is tried."""
    values, order = values.sort()
    weights = weights[order]
    best = float("inf")
    for cuts in itertools.combinations(range(1, len(values)), count - 1):
        total = 0.0
        for start, end in itertools.pairwise((0, *cuts, len(values))):
            w, v = weights[start:end], values[start:end]
            mean = (w * v).sum() / w.sum()
            total += float((w * (v - mean).square()).sum())
        best = min(best, total)
    return best


def test_the_means_of_two_pairs_are_worked_by_hand() -> None:
    row = torch.tensor([[11.0, 0.0, 10.0, 1.0]])
    assert row_means(row, torch.ones(1, 4), 2).tolist() == [[0.5, 10.5]]
    weighted = row_means(row, torch.tensor([[1.0, 3.0, 1.0, 1.0]]), 2)
    assert weighted[0].tolist() == [pytest.approx(0.25), pytest.approx(10.5)]
    assert nearest(row, torch.tensor([[0.5, 10.5]])).tolist() == [[1, 0, 1, 0]]


def test_a_row_of_few_values_has_them_exactly() -> None:
    row = torch.tensor([[3.0, -1.0, 3.0, 7.0, -1.0, -1.0]])
    means = row_means(row, torch.ones(1, 6), 4)
    assert means.tolist()[0] == sorted(means.tolist()[0])
    assert set(means[0].tolist()) == {-1.0, 3.0, 7.0}
    assert row_means(torch.zeros(2, 3), torch.ones(2, 3), 4).tolist() == [[0.0] * 4] * 2


def test_what_weighs_nothing_has_no_say() -> None:
    row = torch.tensor([[0.0, 1.0, 10.0, 11.0, -500.0, 500.0, 5.0]])
    assert row_means(row, torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]]), 2).tolist() == [[0.5, 10.5]]


def test_a_row_that_weighs_nothing_is_weighed_evenly() -> None:
    values = gaussian(1, 20).expand(2, -1)
    weights = torch.stack([torch.zeros(20), torch.ones(20)])
    means = row_means(values, weights, 4)
    assert torch.equal(means[0], means[1])


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 9), st.integers(1, 4), st.integers(0, 2**31))
def test_short_rows_get_the_best_means_there_are(columns: int, count: int, seed: int) -> None:
    values = gaussian(3, columns, seed)
    weights = gaussian(3, columns, seed + 1).square() + 1e-3
    found = cost(values, weights, row_means(values, weights, count))
    for row in range(3):
        best = least_cost(values[row], weights[row], min(count, columns))
        assert float(found[row]) == pytest.approx(best, rel=1e-6, abs=1e-12)


def test_long_rows_get_means_about_as_good_as_those_of_exact_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    values, weights = gaussian(4, 300), gaussian(4, 300, 1).square()
    found = cost(values, weights, row_means(values, weights, 16))
    monkeypatch.setattr(kmeans_math, "BINS", 300)  # one a number: the optimum
    best = cost(values, weights, row_means(values, weights, 16))
    assert (best <= found * (1 + 1e-9)).all()
    assert found.sum() < 1.05 * best.sum()


def test_rows_do_not_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    values, weights = gaussian(5, 90), gaussian(5, 90, 1).square()
    whole = row_means(values, weights, 8)
    monkeypatch.setattr(kmeans_math, "_ROWS", 2)
    assert torch.equal(row_means(values, weights, 8), whole)
    assert torch.equal(row_means(values[3:4], weights[3:4], 8), whole[3:4])
    shuffled = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(row_means(values[:, shuffled], weights[:, shuffled], 8), whole, rtol=1e-12)


def test_a_row_with_an_outlier_is_worked_by_hand() -> None:
    # One weight of nine is set aside; the others are two each of four values, which two bits can name.
    row = torch.tensor([[0.0, 5.0, 100.0, 1.0, 9.0, 1.0, 0.0, 9.0, 5.0]])
    found = quantised(row, RowTables(2, outliers=1 / 9))
    assert found.tables.view(torch.float16).tolist() == [[0.0, 1.0, 5.0, 9.0]]
    codes = unpack(found.codes, 2, 9)[0].tolist()
    assert [code for place, code in enumerate(codes) if place != 2] == [0, 2, 1, 3, 1, 0, 3, 2]
    assert found.values is not None
    assert found.values.view(torch.float16).tolist() == [100.0]
    assert isinstance(found.places, Flat)
    assert found.places.indices.tolist() == [2]
    assert torch.equal(found.dequantise(), row)


def test_the_weight_that_costs_most_is_set_aside_for_that() -> None:
    # Without the largest, 8, two bits hold 0, 1, 2 and 3; 2.4 is 0.4 off, which at a cost of 9 counts most.
    weight = torch.tensor([[0.0, 1.0, 2.0, 3.0, 0.1, 8.0, 2.4, 0.0, 1.0, 2.0]], dtype=torch.float64)
    costs = torch.tensor([[9.0, 9.0, 90.0, 9.0, 1.0, 1.0, 9.0, 9.0, 9.0, 90.0]], dtype=torch.float64)
    assert set_aside(weight, costs, RowTables(2, 0.1)).nonzero()[:, 1].tolist() == [5]
    assert set_aside(weight, costs, RowTables(2, 0.1, 0.1)).nonzero()[:, 1].tolist() == [5, 6]
    assert not set_aside(weight, costs, RowTables(2)).any()


def test_of_equal_weights_the_first_are_set_aside() -> None:
    aside = set_aside(torch.ones(2, 4), torch.ones(2, 4), RowTables(2, 0.25))
    assert aside.tolist() == [[True, True, False, False], [False] * 4]


def test_what_is_set_aside_keeps_its_float16_value() -> None:
    weight = gaussian(16, 64)
    found = quantised(weight, RowTables(3, 0.03, 0.02))
    assert found.places is not None
    mask = found.places.mask()
    assert int(mask.sum()) == found.places.count == int(0.03 * 1024) + int(0.02 * 1024)
    assert torch.equal(found.dequantise()[mask], weight.half().float()[mask])
    assert weight.abs()[mask].max() == weight.abs().max()


def test_inputs_say_which_weights_count() -> None:
    weight = gaussian(32, 64)
    energy = torch.ones(64, dtype=torch.float64)
    energy[:16] = 100
    blind = quantised(weight, RowTables(2)).dequantise()
    seeing = quantised(weight, RowTables(2), gram_of(energy)).dequantise()

    def lost(found: Tensor, columns: slice) -> float:
        return float((found - weight)[:, columns].square().sum())

    assert lost(seeing, slice(0, 16)) < 0.6 * lost(blind, slice(0, 16))
    assert lost(seeing, slice(16, 64)) > lost(blind, slice(16, 64))


def test_only_the_diagonal_of_the_gram_matrix_is_looked_at() -> None:
    weight, energy = gaussian(8, 32), gaussian(1, 32)[0].square()
    full = gram_of(energy) + 0.1 * (torch.ones(32, 32) - torch.eye(32))
    a, b = (quantised(weight, RowTables(3), gram).dequantise() for gram in (gram_of(energy), full))
    assert torch.equal(a, b)


def test_more_bits_and_outliers_lose_less() -> None:
    weight = gaussian(32, 128)

    def lost(bits: int, outliers: float = 0.0) -> float:
        return float(torch.linalg.norm(quantised(weight, RowTables(bits, outliers)).dequantise() - weight))

    assert lost(4) < 0.6 * lost(3) < 0.36 * lost(2)
    assert lost(3, 0.01) < lost(3)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(6, 64), (40, 43), (1, 130), (200, 17)])
def test_the_bytes_follow_from_the_shape(form: RowTables, rows: int, columns: int) -> None:
    found = quantised(gaussian(rows, columns), form)
    held = sum(buffer.numel() * buffer.element_size() for buffer in found.buffers())
    assert held == form.packed_bytes(rows, columns)
    assert found.size() == form.size(rows, columns)
    assert found.packed_weights == rows * columns == form.weights(rows, columns)
    assert not list(found.parameters())


def test_bytes_of_10_rows_of_100_are_worked_by_hand() -> None:
    tabled = 10 * (50 + 2 * 16)
    assert RowTables(4).packed_bytes(10, 100) == tabled
    # 4 weights: 16 bytes as numbers of their own, 8 + 44 in compressed rows; and 2 each for the values.
    assert RowTables(4, 0.0045).packed_bytes(10, 100) == tabled + 4 * 4 + 4 * 2
    # 100 weights: 400 bytes as numbers of their own, 200 + 44 in compressed rows.
    assert RowTables(4, 0.08, 0.02).packed_bytes(10, 100) == tabled + 100 * 2 + 11 * 4 + 100 * 2


@pytest.mark.parametrize(
    ("rows", "columns", "outliers", "store"),
    [
        (4096, 4096, 0.0045, "csr"),
        (4096, 4096, 0.0004, "flat"),
        (4096, 40_000, 0.0045, "flat"),  # a column takes 4 bytes there too
        (128, 128, 0.0045, "flat"),
        (1 << 17, 1 << 15, 0.000001, "csr"),  # more weights than 32 bits can count
    ],
)
def test_places_are_held_in_fewer_bytes(rows: int, columns: int, outliers: float, store: str) -> None:
    places = RowTables(4, outliers).places(rows, columns)
    assert places is not None
    assert places["store"] == store


def test_a_share_of_less_than_one_weight_sets_none_aside() -> None:
    form = RowTables(3, 0.0045)
    assert form.places(10, 20) is None
    found = quantised(gaussian(10, 20), form)
    assert found.places is None
    assert found.values is None


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(FORMS), st.integers(1, 9), st.integers(1, 50))
def test_an_empty_one_of_its_size_takes_its_state(form: RowTables, rows: int, columns: int) -> None:
    found = quantised(gaussian(rows, columns), form)
    other = empty_packed(form.size(rows, columns))
    other.load_state_dict(found.state_dict())
    assert torch.equal(other.dequantise(), found.dequantise())
    assert found.dequantise().dtype is torch.float32


def test_casting_a_model_leaves_tables_and_values_alone() -> None:
    found = quantised(gaussian(5, 64), RowTables(3, 0.05))
    before = found.dequantise()
    assert torch.equal(found.bfloat16().double().dequantise(), before)


def test_zeros_stay_zeros() -> None:
    assert (quantised(torch.zeros(3, 20), RowTables(2, 0.1, 0.1)).dequantise() == 0).all()


@pytest.mark.parametrize(("value", "error"), [(float("nan"), NonFinite), (1e5, Unsupported)])
def test_a_weight_that_cannot_be_held_is_refused(value: float, error: type[Exception]) -> None:
    with pytest.raises(error, match="weight"):
        quantised(torch.tensor([[1.0, value]]), RowTables(4))


def test_a_gram_matrix_that_is_not_finite_is_refused() -> None:
    with pytest.raises(NonFinite, match="Gram matrix"):
        quantised(gaussian(2, 4), RowTables(4), torch.full((4, 4), torch.inf))


@pytest.mark.parametrize(
    ("bits", "outliers", "sensitive", "said"),
    [(8, 0.0, 0.0, "2, 3, 4"), (4, -0.1, 0.0, "0 and more"), (4, 0.6, 0.6, "1 together")],
)
def test_tables_that_make_no_sense_are_refused(
    bits: int, outliers: float, sensitive: float, said: str
) -> None:
    with pytest.raises(Unsupported, match=said):
        RowTables(bits, outliers, sensitive)


def test_forms_are_told_apart_by_their_keys() -> None:
    assert len({form.key for form in FORMS}) == len(FORMS)
    assert NormalLevels.form != Tabled.form
