import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hpo.compress import grid as grids
from hpo.compress.grid import Grid
from hpo.compress.layers import packed
from hpo.compress.layers.forms import empty_packed
from hpo.compress.layers.packed import Rounded, pack, unpack
from hpo.compress.rounding import RoundToNearest
from hpo.errors import NonFinite, Unsupported

GRIDS = [
    Grid(bits, group_size, symmetric)
    for bits in (2, 3, 4, 8)
    for group_size in (0, 32, 128)
    for symmetric in (True, False)
]


def quantised(weight: Tensor, bits: int, group_size: int = 0, symmetric: bool = True) -> Rounded:
    return RoundToNearest(Grid(bits, group_size, symmetric)).quantise(weight)


def scales(found: Rounded) -> list[list[float]]:
    rows: list[list[float]] = found.scales.view(torch.float16).tolist()
    return rows


def gaussian(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_four_bits_of_a_2_by_4_matrix_are_worked_by_hand() -> None:
    # The weight of largest magnitude gets code -8: the scale is 8 / -8 = -1 above and -4 / -8 = 0.5 below.
    found = quantised(torch.tensor([[8.0, -7.0, 2.4, -0.6], [-4.0, 3.5, 0.7, 4.0]]), 4)
    assert scales(found) == [[-1.0], [0.5]]
    codes = unpack(found.codes, 4, 4).int() - 8
    # 2.4 / -1 rounds to -2, -0.6 / -1 to 1; 4.0 / 0.5 = 8 is one too many and becomes 7.
    assert codes.tolist() == [[-8, 7, -2, 1], [-8, 7, 1, 7]]
    assert found.codes.tolist() == [[0 + 16 * 15, 6 + 16 * 9], [0 + 16 * 15, 9 + 16 * 15]]
    assert found.dequantise().tolist() == [[8.0, -7.0, 2.0, -1.0], [-4.0, 3.5, 0.5, 3.5]]


def test_two_bits_with_offsets_in_groups_of_two_are_worked_by_hand() -> None:
    found = RoundToNearest(Grid(2, 2, symmetric=False)).quantise(torch.tensor([[1.0, 4.0, -3.0, 0.0, 5.0]]))
    assert found.offsets is not None
    assert found.offsets.view(torch.float16).tolist() == [[1.0, -3.0, 5.0]]
    assert scales(found) == [[1.0, 1.0, 0.0]]
    assert found.codes.tolist() == [[0 + 4 * 3 + 16 * 0 + 64 * 3, 0]]
    assert found.dequantise().tolist() == [[1.0, 4.0, -3.0, 0.0, 5.0]]


def test_eight_codes_of_three_bits_stand_in_three_bytes() -> None:
    # 0b_111_000_000_000_000_000_001_010 read from the lowest bits: 2, 1, then zeros, then 7.
    packed_codes = pack(torch.tensor([[2, 1, 0, 0, 0, 0, 0, 7]], dtype=torch.uint8), 3)
    assert packed_codes.tolist() == [[2 + 8 * 1, 0, 0b11100000]]


@given(st.sampled_from((2, 3, 4, 8)), st.integers(1, 5), st.integers(1, 41), st.integers(0, 2**31))
def test_codes_come_back_from_packing(bits: int, rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (rows, columns), generator=generator, dtype=torch.uint8)
    held = pack(codes, bits)
    assert held.dtype is torch.uint8
    assert held.shape == (rows, Grid(bits).row_bytes(columns))
    assert torch.equal(unpack(held, bits, columns), codes)


@settings(deadline=None)
@given(st.sampled_from(GRIDS), st.integers(1, 9), st.integers(1, 70), st.integers(-9, 9))
def test_no_weight_is_further_off_than_a_step(grid: Grid, rows: int, columns: int, power: int) -> None:
    weight = gaussian(rows, columns, seed=rows * 100 + columns) * 2.0**power
    found = RoundToNearest(grid).quantise(weight)
    step = found.scales.view(torch.float16).float().abs().repeat_interleave(grid.group_size or columns, dim=1)
    # Half a step by rounding, a whole one where the opposite extreme has no code; the scale is float16.
    slack = 2e-3 * weight.abs().max()
    assert ((found.dequantise() - weight).abs() <= step[:, :columns] + slack).all()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("columns", [32, 43, 130])
def test_the_bytes_follow_from_the_shape(grid: Grid, columns: int) -> None:
    found = RoundToNearest(grid).quantise(gaussian(6, columns))
    held = sum(buffer.numel() * buffer.element_size() for buffer in found.buffers())
    assert held == grid.packed_bytes(6, columns)
    assert found.packed_weights == 6 * columns
    assert not list(found.parameters())


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (Grid(4, 32), 10 * (32 + 2 * 2)),
        (Grid(4), 10 * (32 + 2)),
        (Grid(3, 32), 10 * (24 + 2 * 2)),
        (Grid(2, 32, symmetric=False), 10 * (16 + 2 * 2 + 2 * 2)),
        (Grid(8, 128), 10 * (64 + 2)),
    ],
    ids=str,
)
def test_bytes_of_10_rows_of_64_are_worked_by_hand(grid: Grid, expected: int) -> None:
    assert grid.packed_bytes(10, 64) == expected


def test_more_bits_smaller_groups_and_offsets_lose_less() -> None:
    weight = gaussian(16, 128)

    def lost(bits: int, group_size: int = 0, symmetric: bool = True) -> float:
        found = quantised(weight, bits, group_size, symmetric).dequantise()
        return float(torch.linalg.norm(found - weight))

    assert lost(8) < lost(4) / 8 < lost(3) / 8 < lost(2) / 8
    assert lost(4, 32) < lost(4, 64) < lost(4)
    assert lost(4, 32, False) < lost(4, 32)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_zeros_stay_zeros(grid: Grid) -> None:
    weight = gaussian(3, 64)
    weight[1] = 0
    found = RoundToNearest(grid).quantise(weight).dequantise()
    assert (found[1] == 0).all()
    assert (RoundToNearest(grid).quantise(torch.zeros(3, 64)).dequantise() == 0).all()


def test_weights_too_small_for_a_float16_scale_are_not_lost() -> None:
    found = quantised(torch.tensor([[1e-7, -1e-7]]), 4)
    assert found.dequantise().tolist() == [[pytest.approx(1e-7, rel=0.5), pytest.approx(-1e-7, rel=0.5)]]


@pytest.mark.parametrize("grid", GRIDS[::5], ids=str)
def test_an_empty_one_of_its_size_takes_its_state(grid: Grid) -> None:
    found = RoundToNearest(grid).quantise(gaussian(5, 43))
    other = empty_packed(found.size())
    other.load_state_dict(found.state_dict())
    assert torch.equal(other.dequantise(), found.dequantise())
    assert other.size() == found.size()


def test_casting_a_model_leaves_the_scales_alone() -> None:
    found = RoundToNearest(Grid(4, 32)).quantise(gaussian(5, 64))
    before = found.dequantise()
    assert torch.equal(found.bfloat16().double().dequantise(), before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(value: float) -> None:
    weight = torch.ones(2, 2)
    weight[0, 1] = value
    with pytest.raises(NonFinite, match="weight"):
        quantised(weight, 4)


def test_a_weight_beyond_float16_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"1e\+05"):
        quantised(torch.tensor([[1e5, 1.0]]), 4)


@pytest.mark.parametrize(("bits", "group", "named"), [(5, 0, "2, 3, 4, 8"), (4, -1, "0 for whole rows")])
def test_a_grid_that_cannot_be_packed_is_refused(bits: int, group: int, named: str) -> None:
    with pytest.raises(Unsupported, match=named):
        Grid(bits, group)


def test_plans_and_layers_pack_alike() -> None:
    assert grids.UNITS == packed.UNITS
