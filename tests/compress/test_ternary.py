import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hpo.compress import trits as plans
from hpo.compress.layers import ternary as layers
from hpo.compress.layers.forms import empty_packed
from hpo.compress.layers.ternary import Ternary, pack_trits, unpack_trits
from hpo.compress.quantize_groups import in_groups
from hpo.compress.ternary import Scale, TernaryQuantizer, untied
from hpo.compress.trits import Trits
from hpo.errors import NonFinite, Unsupported

SCALES: tuple[Scale, ...] = ("absmean", "fitted")


def quantised(weight: Tensor, scale: Scale, group_size: int = 0) -> Ternary:
    return TernaryQuantizer(Trits(group_size), scale).quantise(weight)


def gaussian(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_a_row_of_four_is_worked_by_hand() -> None:
    # Its mean magnitude is 1: what is below a half becomes 0. The others have the mean magnitude 3.6 / 3.
    row = torch.tensor([[2.0, -1.0, 0.4, 0.6]])
    plain, fitted = quantised(row, "absmean"), quantised(row, "fitted")
    assert unpack_trits(plain.codes, 4).tolist() == [[1, -1, 0, 1]]
    assert plain.dequantise().tolist() == [[1, -1, 0, 1]]
    assert torch.equal(plain.codes, fitted.codes)
    assert torch.allclose(fitted.dequantise(), 1.2 * plain.dequantise(), rtol=1e-3)


def test_five_codes_are_a_number_of_base_three_the_first_the_lowest() -> None:
    assert pack_trits(torch.tensor([[1, -1, 0, 1, -1, 0]])).tolist() == [[2 + 0 + 9 * 1 + 27 * 2 + 81 * 0, 1]]
    assert pack_trits(torch.ones(1, 5)).tolist() == [[242]]


@given(st.integers(1, 5), st.integers(1, 41), st.integers(0, 2**31))
def test_codes_come_back_from_packing(rows: int, columns: int, seed: int) -> None:
    drawn = torch.randint(-1, 2, (rows, columns), generator=torch.Generator().manual_seed(seed))
    held = pack_trits(drawn)
    assert held.dtype is torch.uint8
    assert held.shape == (rows, -(-columns // 5))
    assert torch.equal(unpack_trits(held, columns), drawn.float())


def test_a_short_last_group_has_the_mean_of_its_own_weights() -> None:
    found = quantised(torch.tensor([[1.0, -3.0, 4.0]]), "absmean", 2)
    assert found.scales.view(torch.float16).tolist() == [[2.0, 4.0]]
    assert found.dequantise().tolist() == [[0.0, -2.0, 4.0]]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("group_size", [0, 16, 24])
@pytest.mark.parametrize("columns", [1, 43, 64])
def test_the_bytes_follow_from_the_shape(scale: Scale, group_size: int, columns: int) -> None:
    form = Trits(group_size)
    found = TernaryQuantizer(form, scale).quantise(gaussian(6, columns))
    held = sum(buffer.numel() * buffer.element_size() for buffer in found.buffers())
    assert held == form.packed_bytes(6, columns)
    assert found.size() == form.size(6, columns)
    assert found.packed_weights == 6 * columns == form.weights(6, columns)
    assert not list(found.parameters())


def test_bytes_of_10_rows_of_64_are_worked_by_hand() -> None:
    assert Trits(0).packed_bytes(10, 64) == 10 * (13 + 2)
    assert Trits(32).packed_bytes(10, 64) == 10 * (13 + 2 * 2)
    assert Trits(0).packed_bytes(4096, 4095) * 8 / (4096 * 4095) == pytest.approx(1.6, abs=0.005)


@pytest.mark.parametrize("group_size", [0, 16])
def test_no_other_scale_serves_the_same_codes_better_than_the_fitted_one(group_size: int) -> None:
    weight = gaussian(8, 48)

    def lost(found: Tensor) -> Tensor:
        return in_groups(found - weight, group_size).square().sum(-1)

    fitted = quantised(weight, "fitted", group_size).dequantise()
    for factor in (0.97, 1.03):
        assert (lost(fitted) < lost(factor * fitted)).all()
    assert lost(fitted).sum() < lost(quantised(weight, "absmean", group_size).dequantise()).sum()


@settings(deadline=None)
@given(st.sampled_from(SCALES), st.sampled_from((0, 8, 16)), st.integers(1, 6), st.integers(1, 50))
def test_an_empty_one_of_its_size_takes_its_state(scale: Scale, group: int, rows: int, columns: int) -> None:
    found = quantised(gaussian(rows, columns), scale, group)
    other = empty_packed(Trits(group).size(rows, columns))
    other.load_state_dict(found.state_dict())
    assert torch.equal(other.dequantise(), found.dequantise())
    assert found.dequantise().dtype is torch.float32


@settings(deadline=None)
@given(st.sampled_from((0, 8, 16)), st.integers(1, 6), st.integers(1, 50), st.integers(-8, 8))
def test_untied_weights_are_rounded_to_the_matrix_they_come_from(
    group: int, rows: int, columns: int, power: int
) -> None:
    found = quantised(gaussian(rows, columns, seed=columns) * 2.0**power, "absmean", group)
    again = quantised(untied(found), "absmean", group)
    assert torch.equal(again.dequantise(), found.dequantise())


@pytest.mark.parametrize("group", [0, 16])
def test_with_fitted_scales_what_was_rounded_is_rounded_to_itself(group: int) -> None:
    once = quantised(gaussian(8, 64), "fitted", group).dequantise()
    assert torch.equal(quantised(once, "fitted", group).dequantise(), once)


@pytest.mark.parametrize("scale", SCALES)
def test_zeros_stay_zeros(scale: Scale) -> None:
    weight = gaussian(3, 32)
    weight[1] = 0
    assert (quantised(weight, scale, 16).dequantise()[1] == 0).all()
    zeros = quantised(torch.zeros(2, 32), scale)
    assert (zeros.dequantise() == 0).all()
    assert (untied(zeros) == 0).all()


def test_casting_a_model_leaves_the_scales_alone() -> None:
    found = quantised(gaussian(5, 64), "fitted")
    before = found.dequantise()
    assert torch.equal(found.bfloat16().double().dequantise(), before)


@pytest.mark.parametrize(("value", "error"), [(float("inf"), NonFinite), (1e5, Unsupported)])
def test_a_weight_that_cannot_be_held_is_refused(value: float, error: type[Exception]) -> None:
    with pytest.raises(error, match="weight"):
        quantised(torch.tensor([[1.0, value]]), "fitted")


def test_groups_of_less_than_a_column_are_refused() -> None:
    with pytest.raises(Unsupported, match="0 for whole rows"):
        Trits(-1)


def test_the_two_scales_are_two_quantizers() -> None:
    keys = {TernaryQuantizer(Trits(), scale).key for scale in SCALES}
    assert len(keys) == 2


def test_plans_and_layers_pack_alike() -> None:
    assert plans.A_BYTE == layers.TRITS_A_BYTE
