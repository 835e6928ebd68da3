import math

import pytest
import torch
from torch import Tensor

from hpo.compress.awq import AwqQuantizer
from hpo.compress.awq_grid import ScaledGrid
from hpo.compress.awq_math import SMALLEST_MAGNITUDE, awq, reciprocals
from hpo.compress.clipping import best_grid, clipped_grid, nearest, output_error
from hpo.compress.correction_math import weighted_error
from hpo.compress.grid import Grid
from hpo.compress.layers.forms import FORMS, empty_packed
from hpo.compress.quantizer import Quantizer
from hpo.compress.rounding import RoundToNearest, codes, grouped
from hpo.errors import NonFinite, Unsupported

GRIDS = [Grid(4, 16), Grid(3), Grid(2, 16), Grid(3, 16, symmetric=False), Grid(8, 7)]


def gaussian(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def gram(columns: int, seed: int = 1, loud: int = 3) -> Tensor:
    """Of inputs of which a few channels are much larger than the others."""
    inputs = gaussian(400, columns, seed) @ (gaussian(columns, columns, seed + 1) / columns**0.5 + 1)
    inputs[:, :loud] *= 20
    found: Tensor = inputs.T @ inputs
    return found


def lost(weight: Tensor, gram_II: Tensor | None, quantizer: Quantizer) -> float:
    return weighted_error(weight - quantizer.quantise(weight, gram_II).dequantise(), gram_II)


def test_scales_are_powers_of_the_inputs_size_worked_by_hand() -> None:
    # Roots 1, 2, 4; the middle of 1 and 4 is 2, so columns are multiplied with a half, one and two.
    assert reciprocals(torch.tensor([1.0, 4.0, 16.0]).double(), 0.5).tolist() == [2.0, 1.0, 0.5]
    assert reciprocals(torch.tensor([1.0, 4.0, 16.0]).double(), 0.0).tolist() == [1.0, 1.0, 1.0]


def test_a_silent_channel_gets_a_scale_that_float16_holds() -> None:
    found = reciprocals(torch.tensor([0.0, 1.0]).double(), 1.0)
    assert found.tolist() == pytest.approx([SMALLEST_MAGNITUDE**-0.5, SMALLEST_MAGNITUDE**0.5], rel=1e-3)
    assert reciprocals(torch.zeros(3).double(), 0.5).tolist() == [1.0, 1.0, 1.0]


def test_a_small_weight_of_a_loud_channel_is_saved_by_its_scale() -> None:
    # The scale of the row is 1, so 0.4 is rounded to 0, of an input 100 times the other's: 0.16 * 10^4 lost.
    weight, G = torch.tensor([[0.4, -8.0]]), torch.diag(torch.tensor([1e4, 1.0]))
    assert lost(weight, G, RoundToNearest(Grid(4))) == pytest.approx(1600, rel=1e-5)
    found = awq(weight, G, Grid(4), steps=2, clip=False)
    # With alpha a half columns are multiplied with the root of 10 and its inverse: 1.265 and -2.53 in steps
    # of 0.316, both without a rest. With alpha 1 it would be 4 and -0.8 in steps of 0.5: the second off by 2.
    assert found.reciprocals.view(torch.float16).tolist() == pytest.approx([10**-0.5, 10**0.5], rel=1e-3)
    assert found.dequantise().tolist() == [pytest.approx([0.4, -8], rel=1e-3)]
    assert lost(weight, G, AwqQuantizer(Grid(4), clip=False, alpha_steps=2)) < 1e-2
    assert lost(weight, G, AwqQuantizer(Grid(4), clip=False, alpha_steps=1)) == pytest.approx(4, rel=1e-2)


def test_the_sum_of_errors_is_worked_by_hand() -> None:
    # (1, 2) G (1, 2)' = 1 * 4 + 2 * 2 * 1 + 4 * 3 = 20
    difference, G = torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 1.0], [1.0, 3.0]])
    assert output_error(difference, G) == 20
    assert output_error(difference, None) == 5


def test_clipping_gives_up_what_nobody_reads() -> None:
    # One weight of -8 that reads next to nothing makes the steps of its group 1. Cut to half, they are 0.5:
    # all others are exact, and it becomes -4.
    weight = torch.tensor([[-0.5, 1.5, 2.5, -3.5, -8.0, 1.0, 0.5, 2.0]])
    G = torch.diag(torch.tensor([1.0] * 4 + [1e-3] + [1.0] * 3))
    whole = awq(weight, G, Grid(4), steps=1, clip=False)
    cut = awq(weight, G, Grid(4), steps=1, clip=True)
    assert cut.dequantise().tolist() == [[-0.5, 1.5, 2.5, -3.5, -4.0, 1.0, 0.5, 2.0]]
    assert weighted_error(weight - cut.dequantise(), G) < 0.1 < weighted_error(weight - whole.dequantise(), G)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_best_grid_loses_no_more_than_any_other_that_is_tried(grid: Grid) -> None:
    groups = grouped(gaussian(5, 43), grid)
    size = groups.shape[-1]
    weights = torch.stack([gram(size, seed) for seed in range(groups.shape[1])])

    def errors(fitted: tuple[Tensor, Tensor | None], among: Tensor) -> Tensor:
        off = groups - nearest(groups, *fitted, grid.bits)
        return torch.einsum("ogs,gst,ogt->og", off, among, off)

    for among in (weights, torch.eye(size).expand_as(weights)):
        found = errors(best_grid(groups, grid, None if among is not weights else weights), among)
        for share in (1.0, 0.9, 0.75, 0.5):
            assert (found <= errors(clipped_grid(groups, grid, share), among) * (1 + 1e-3) + 1e-4).all()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_grid_of_a_clipped_group_is_worked_from_its_cut_weights(grid: Grid) -> None:
    groups = grouped(gaussian(5, 43).double(), grid)
    scales, offsets = clipped_grid(groups, grid, 0.75)
    values = nearest(groups, scales, offsets, grid.bits)
    limit = 0.75 * groups.abs().amax(-1, keepdim=True)
    assert (values.abs() <= limit * 1.01).all()
    whole = nearest(groups, *clipped_grid(groups, grid, 1.0), grid.bits).float()
    rounded = RoundToNearest(grid).quantise(gaussian(5, 43)).dequantise()
    assert torch.allclose(whole.flatten(1)[:, :43], rounded, atol=1e-6)
    stands_for = codes(groups, scales, offsets, grid.bits).int() - (2 ** (grid.bits - 1)) * grid.symmetric
    shift = 0 if offsets is None else offsets.double()[..., None]
    assert torch.allclose(scales.double()[..., None] * stands_for + shift, values)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 40), (24, 16), (9, 43)])
def test_it_never_loses_more_than_rounding_to_nearest(
    rows: int, columns: int, grid: Grid, clip: bool
) -> None:
    for seed in range(3):
        weight, G = gaussian(rows, columns, seed), gram(columns, seed=10 + seed)
        ours = lost(weight, G, AwqQuantizer(grid, clip, 8))
        assert ours <= lost(weight, G, RoundToNearest(grid)) * (1 + 1e-5)


def test_loud_channels_make_it_lose_much_less_and_clipping_less_still() -> None:
    weight, G, grid = gaussian(24, 64), gram(64), Grid(3, 16)
    nearest_, scaled = lost(weight, G, RoundToNearest(grid)), lost(weight, G, AwqQuantizer(grid, False))
    assert lost(weight, G, AwqQuantizer(grid)) < 0.9 * scaled
    assert scaled < 0.5 * nearest_


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_without_a_gram_matrix_nothing_is_scaled_and_clipping_goes_by_the_weights(grid: Grid) -> None:
    weight = gaussian(6, 43)
    rounded = RoundToNearest(grid).quantise(weight).dequantise()
    plain = AwqQuantizer(grid, clip=False).quantise(weight, None)
    assert torch.equal(plain.dequantise(), rounded)
    cut = AwqQuantizer(grid).quantise(weight, None)
    assert (cut.reciprocals.view(torch.float16) == 1).all()
    assert weighted_error(weight - cut.dequantise(), None) <= weighted_error(weight - rounded, None)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("columns", [32, 43])
def test_bytes_are_those_of_the_grid_and_two_a_column(grid: Grid, columns: int) -> None:
    found = AwqQuantizer(grid, alpha_steps=2).quantise(gaussian(6, columns), gram(columns))
    held = sum(buffer.numel() * buffer.element_size() for buffer in found.buffers())
    assert held == ScaledGrid(grid).packed_bytes(6, columns) == grid.packed_bytes(6, columns) + 2 * columns
    assert found.packed_weights == ScaledGrid(grid).weights(6, columns) == 6 * columns
    assert not list(found.parameters())


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_an_empty_one_of_its_size_takes_its_state(grid: Grid) -> None:
    found = AwqQuantizer(grid, alpha_steps=2).quantise(gaussian(5, 43), gram(43))
    assert found.size() == ScaledGrid(grid).size(5, 43)
    other = empty_packed(found.size())
    other.load_state_dict(found.state_dict())
    assert torch.equal(other.dequantise(), found.dequantise())
    assert torch.equal(found.bfloat16().dequantise(), other.dequantise())


def test_scales_that_would_put_weights_beyond_float16_are_not_tried() -> None:
    weight, G = torch.tensor([[60000.0, 1.0]]), torch.diag(torch.tensor([1e6, 1.0]))
    found = awq(weight, G, Grid(4), steps=4, clip=True)
    assert torch.isfinite(found.dequantise()).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused_by_name(value: float) -> None:
    weight, G = gaussian(3, 4), torch.eye(4)
    quantizer = AwqQuantizer(Grid(4))
    with pytest.raises(NonFinite, match="Gram matrix"):
        quantizer.quantise(weight, G * value)
    with pytest.raises(NonFinite, match="weight"):
        quantizer.quantise(weight * value, G)
    with pytest.raises(Unsupported, match="65504"):
        quantizer.quantise(weight * 1e6, G)


def test_formats_and_quantizers_that_differ_have_keys_that_differ() -> None:
    quantizers = [AwqQuantizer(Grid(4)), AwqQuantizer(Grid(4), clip=False), AwqQuantizer(Grid(4), True, 5)]
    assert len({quantizer.key for quantizer in quantizers}) == 3
    assert ScaledGrid(Grid(4, 32)).key == "4g32s"
    assert str(ScaledGrid(Grid(4, 32))) == "4 bits in groups of 32, columns scaled"
    assert ScaledGrid(Grid(4, 32)).fault(3, 5) == ""


def test_forms_are_listed_under_the_names_they_bear() -> None:
    assert {name: kind.form for name, kind in FORMS.items()} == {name: name for name in FORMS}
