import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hpo.compress import normal_float
from hpo.compress.grid import Grid
from hpo.compress.layers import codebook
from hpo.compress.layers.codebook import NF4_BITS, NF4_LEVELS, NormalLevels
from hpo.compress.layers.forms import empty_packed
from hpo.compress.layers.packed import unpack
from hpo.compress.nf4 import Nf4Quantizer, in_steps
from hpo.compress.normal_float import NormalFloat
from hpo.compress.planner import plan_of
from hpo.compress.profiling import Profiler
from hpo.compress.rounding import RoundToNearest
from hpo.errors import NonFinite, Unsupported
from hpo.models.dense import DenseModel
from hpo.space import Candidate, Value
from tests.compress import small

PUBLISHED = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
]
"""Appendix E of the paper."""
FORMS = [NormalFloat(group, double) for group in (0, 32, 64) for double in (False, True)]


def quantised(weight: Tensor, group_size: int = 0, double: bool = False) -> NormalLevels:
    return Nf4Quantizer(NormalFloat(group_size, double)).quantise(weight)


def gaussian(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def lost(found: Tensor, weight: Tensor) -> float:
    return float(torch.linalg.norm(found - weight) / torch.linalg.norm(weight))


def test_the_levels_are_those_that_were_published() -> None:
    assert pytest.approx(PUBLISHED, abs=1e-6) == list(NF4_LEVELS)


def test_two_rows_in_groups_of_two_are_worked_by_hand() -> None:
    # Scales are 4, 2, 8 and 1. Of 4: 0.75 is nearest to level 14, 0.723; of 2: -0.2 to level 5, -0.185.
    found = quantised(torch.tensor([[4.0, 3.0, -2.0, -0.4], [0.0, -8.0, 1.0, 0.1]]), 2)
    assert found.scales.view(torch.float16).tolist() == [[4.0, 2.0], [8.0, 1.0]]
    assert unpack(found.codes, NF4_BITS, 4).tolist() == [[15, 14, 0, 5], [7, 0, 15, 8]]
    assert found.codes.tolist() == [[15 + 16 * 14, 0 + 16 * 5], [7 + 16 * 0, 15 + 16 * 8]]
    L = PUBLISHED
    expected = [[4.0, 4 * L[14], -2.0, 2 * L[5]], [0.0, -8.0, 1.0, L[8]]]
    assert torch.allclose(found.dequantise(), torch.tensor(expected), atol=1e-6)


def test_scales_in_eight_bits_are_steps_from_their_mean() -> None:
    # Their mean is 2; the farthest, 4.54, is 127 steps of 0.02 away, and 1.0 is 50 of them below.
    counts, steps, mean = in_steps(torch.tensor([[1.0, 0.0, 4.54], [2.02, 2.44, 2.0]], dtype=torch.float64))
    assert mean.tolist() == [pytest.approx(2.0)]
    assert steps.tolist() == [pytest.approx(0.02)]
    assert counts.tolist() == [[-50, -100, 127], [1, 22, 0]]
    found = quantised(torch.tensor([[1.0], [0.0], [4.54], [2.02], [2.44], [2.0]]), double=True)
    assert torch.allclose(
        found.dequantise(), torch.tensor([[1.0], [0.0], [4.54], [2.02], [2.44], [2.0]]), atol=1e-6
    )


def test_every_256_scales_have_a_step_of_their_own_row_after_row() -> None:
    weight = gaussian(20, 64)
    weight[10:] *= 100
    found = quantised(weight, 2, double=True)  # 640 scales: 8 rows a block, and rows 16 to 19 in the last
    assert found.steps is not None
    assert found.steps.numel() == 3
    steps = found.steps.view(torch.float32)
    assert steps[0] < steps[1]
    exact = weight.abs().reshape(20, 32, 2).amax(-1)
    each = steps.repeat_interleave(256)[:640].reshape(20, 32)
    assert ((found.scale_values() - exact).abs() <= each / 2 + 1e-4).all()


def test_scales_that_are_all_alike_are_kept_whole() -> None:
    found = quantised(torch.tensor([[3.0, 3.0], [3.0, -3.0]]), double=True)
    assert found.dequantise().tolist() == [[3.0, 3.0], [3.0, -3.0]]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(6, 64), (300, 43), (1, 130)])
def test_the_bytes_follow_from_the_shape(form: NormalFloat, rows: int, columns: int) -> None:
    found = Nf4Quantizer(form).quantise(gaussian(rows, columns))
    held = sum(buffer.numel() * buffer.element_size() for buffer in found.buffers())
    assert held == form.packed_bytes(rows, columns)
    assert found.packed_weights == rows * columns == form.weights(rows, columns)
    assert found.size() == form.size(rows, columns)
    assert not list(found.parameters())


def test_bytes_of_10_rows_of_128_are_worked_by_hand() -> None:
    assert NormalFloat(64).packed_bytes(10, 128) == 10 * (64 + 2 * 2)
    assert NormalFloat(0).packed_bytes(10, 128) == 10 * (64 + 2)
    # 20 scales of a byte, one step and the mean.
    assert NormalFloat(64, double=True).packed_bytes(10, 128) == 10 * 64 + 20 + 4 + 4


def test_doubled_scales_of_large_matrices_take_an_eighth_of_a_bit_a_weight() -> None:
    bits = NormalFloat(64, double=True).packed_bytes(4096, 4096) * 8 / 4096**2
    assert bits == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=1e-5)


@settings(deadline=None)
@given(st.sampled_from(FORMS), st.integers(1, 9), st.integers(1, 70), st.integers(-9, 9))
def test_no_weight_is_further_off_than_half_the_widest_gap(
    form: NormalFloat, rows: int, columns: int, power: int
) -> None:
    weight = gaussian(rows, columns, seed=rows * 100 + columns) * 2.0**power
    found = Nf4Quantizer(form).quantise(weight)
    scales = codebook.spread_over_groups(found.scale_values(), form.group_size, columns)
    assert ((found.dequantise() - weight).abs() <= 0.152 * scales + 0.02 * weight.abs().max()).all()


@settings(deadline=None)
@given(st.sampled_from(FORMS), st.integers(1, 9), st.integers(1, 70))
def test_an_empty_one_of_its_size_takes_its_state(form: NormalFloat, rows: int, columns: int) -> None:
    found = Nf4Quantizer(form).quantise(gaussian(rows, columns))
    other = empty_packed(form.size(rows, columns))
    other.load_state_dict(found.state_dict())
    assert torch.equal(other.dequantise(), found.dequantise())
    assert found.dequantise().dtype is torch.float32


def test_gaussian_weights_lose_less_than_on_an_even_grid_of_as_many_bytes() -> None:
    weight = gaussian(64, 256)
    even = RoundToNearest(Grid(4, 64)).quantise(weight).dequantise()
    assert lost(quantised(weight, 64).dequantise(), weight) < 0.97 * lost(even, weight)


def test_smaller_groups_lose_less_and_doubled_scales_hardly_more() -> None:
    weight = gaussian(64, 256)
    by_group = [lost(quantised(weight, group).dequantise(), weight) for group in (16, 64, 0)]
    assert by_group == sorted(by_group)
    doubled = lost(quantised(weight, 64, double=True).dequantise(), weight)
    assert doubled == pytest.approx(by_group[1], rel=0.01)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_zeros_stay_zeros(form: NormalFloat) -> None:
    weight = gaussian(3, 64)
    weight[1] = 0
    assert (Nf4Quantizer(form).quantise(weight).dequantise()[1] == 0).all()
    assert (Nf4Quantizer(form).quantise(torch.zeros(3, 64)).dequantise() == 0).all()


@pytest.mark.parametrize("form", FORMS[:2], ids=str)
def test_what_was_rounded_is_rounded_to_itself(form: NormalFloat) -> None:
    once = Nf4Quantizer(form).quantise(gaussian(8, 64))
    again = Nf4Quantizer(form).quantise(once.dequantise())
    assert torch.equal(again.codes, once.codes)
    # Scales of scales are fitted anew, and move by a part of a step.
    assert torch.allclose(again.dequantise(), once.dequantise(), rtol=2e-3 if form.double else 0)


def test_casting_a_model_leaves_the_scales_alone() -> None:
    found = quantised(gaussian(5, 64), 32, double=True)
    before = found.dequantise()
    assert torch.equal(found.bfloat16().double().dequantise(), before)


@pytest.mark.parametrize(("value", "error"), [(float("nan"), NonFinite), (1e5, Unsupported)])
@pytest.mark.parametrize("double", [False, True])
def test_a_weight_that_cannot_be_held_is_refused(value: float, error: type[Exception], double: bool) -> None:
    with pytest.raises(error, match="weight"):
        quantised(torch.tensor([[1.0, value]]), double=double)


def test_groups_of_less_than_a_column_are_refused() -> None:
    with pytest.raises(Unsupported, match="0 for whole rows"):
        NormalFloat(-1)


def test_a_group_size_that_does_not_divide_a_row_is_refused_when_planned(llama: DenseModel) -> None:
    profile = Profiler(llama, small.corpus(), small.CONTEXT).profile([])
    asked: dict[str, Value] = {"quantize": "nf4", "quantize.group_size": 24}
    with pytest.raises(Unsupported, match=r"groups of 24 do not divide a row of 32[\s\S]*last_group: short"):
        plan_of(profile, Candidate.of(asked))
    plan_of(profile, Candidate.of({**asked, "quantize.last_group": "short"}))


def test_plans_and_layers_agree_on_the_blocks() -> None:
    assert normal_float.BLOCK == codebook.SCALES_A_BLOCK
    assert normal_float.BITS == NF4_BITS
