import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hpo.compress import gptq_math
from hpo.compress.applying import compressed
from hpo.compress.correction_math import weighted_error
from hpo.compress.gptq import GptqQuantizer
from hpo.compress.gptq_math import blocks, gptq, inverse_root
from hpo.compress.grid import Grid
from hpo.compress.layers.packed import Rounded, unpack
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.quantizer import Quantizer
from hpo.compress.rounding import RoundToNearest
from hpo.errors import NonFinite, Unsupported
from hpo.measure.likelihood import score
from hpo.models.dense import DenseModel, load_model
from hpo.models.text import Role, read_corpus
from hpo.space import Candidate, Value
from hpo.study import ModelSource, TextSource
from tests.compress import small

FAINT = 1e-12
"""A damping that changes nothing worked out by hand."""
GRIDS = [Grid(4, 16), Grid(3), Grid(2, 16), Grid(3, 16, symmetric=False), Grid(8, 7)]
ASSETS = Path(__file__).parents[2].parent / "shared" / "assets"


def gaussian(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def gram(columns: int, tokens: int = 500, seed: int = 1) -> Tensor:
    """Of correlated inputs of very different sizes."""
    inputs = gaussian(tokens, columns, seed) @ gaussian(columns, columns, seed + 1)
    order = torch.randperm(columns, generator=torch.Generator().manual_seed(seed))
    inputs = inputs * torch.logspace(-1, 1, columns)[order]
    found: Tensor = inputs.T @ inputs
    return found


def lost(weight: Tensor, gram_II: Tensor, quantizer: Quantizer) -> float:
    return weighted_error(weight - quantizer.quantise(weight, gram_II).dequantise(), gram_II)


def codes(found: Rounded) -> list[list[int]]:
    unpacked: list[list[int]] = unpack(found.codes, found.bits, found.columns).tolist()
    return unpacked


def test_two_columns_are_worked_by_hand() -> None:
    # The scale is -8 / -8 = 1. 2.4 becomes 2, too little by 0.4; the second column moves by 0.4 * 8 / 4 = 0.8
    # to -7.2 and becomes -7. Off by (0.4, -1): 20 * 0.16 - 2 * 8 * 0.4 + 4 = 0.8; rounding to nearest is off
    # by (0.4, 0): 20 * 0.16 = 3.2.
    weight, G = torch.tensor([[2.4, -8.0]]), torch.tensor([[20.0, 8.0], [8.0, 4.0]])
    for act_order in (True, False):
        found = gptq(weight, G, Grid(4), damping=FAINT, act_order=act_order, clip=False)
        assert found.dequantise().tolist() == [[2.0, -7.0]]
    assert weighted_error(weight - found.dequantise(), G) == pytest.approx(0.8, rel=1e-5)
    assert lost(weight, G, RoundToNearest(Grid(4))) == pytest.approx(3.2, rel=1e-5)


def test_the_column_with_the_larger_inputs_goes_first_if_asked() -> None:
    # The same two columns the other way round: in their own order the first, exact, has nothing to pass on.
    weight, G = torch.tensor([[-8.0, 2.4]]), torch.tensor([[4.0, 8.0], [8.0, 20.0]])
    assert gptq(weight, G, Grid(4), damping=FAINT, act_order=True, clip=False).dequantise().tolist() == [
        [-7.0, 2.0]
    ]
    assert gptq(weight, G, Grid(4), damping=FAINT, act_order=False, clip=False).dequantise().tolist() == [
        [-8.0, 2.0]
    ]


def test_a_group_is_fitted_to_its_weights_as_they_are_when_it_begins() -> None:
    # Columns 0 and 2 read inputs that go together: 2.4 becomes 2, and column 2, alone in its group and so
    # exact on its grid, moves from 3 to 3 + 0.4 * 6 / 4 = 3.6.
    weight = torch.tensor([[2.4, -8.0, 3.0]])
    G = torch.tensor([[10.0, 0.0, 6.0], [0.0, 1.0, 0.0], [6.0, 0.0, 4.0]])
    found = gptq(weight, G, Grid(4, 2), damping=FAINT, act_order=False, clip=False)
    assert found.dequantise().tolist() == [[2.0, -8.0, pytest.approx(3.6, rel=1e-3)]]
    assert found.scales.view(torch.float16).tolist() == [[1.0, pytest.approx(-0.45, rel=1e-3)]]


def test_in_the_order_of_the_inputs_groups_keep_the_grid_of_the_weights_as_given() -> None:
    weight, G = gaussian(5, 43), gram(43)
    for grid in GRIDS:
        found = gptq(weight, G, grid, damping=0.01, act_order=True, clip=False)
        nearest = RoundToNearest(grid).quantise(weight)
        assert torch.equal(found.scales, nearest.scales)
        if found.offsets is not None and nearest.offsets is not None:
            assert torch.equal(found.offsets, nearest.offsets)


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 40), (24, 16), (9, 43)])
def test_it_never_loses_more_than_rounding_to_nearest_in_the_mean(
    rows: int, columns: int, grid: Grid, act_order: bool
) -> None:
    ours, nearest = GptqQuantizer(grid, act_order, clip=False), RoundToNearest(grid)
    sums = [0.0, 0.0]
    for seed in range(4):
        weight, G = gaussian(rows, columns, seed), gram(columns, seed=10 + seed)
        sums[0] += lost(weight, G, ours)
        sums[1] += lost(weight, G, nearest)
    assert sums[0] <= sums[1] * (1 + 1e-6)
    if min(rows, columns) > 1 and (act_order or grid.bits > 2):
        assert sums[0] < 0.9 * sums[1]


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_inputs_that_do_not_go_together_leave_rounding_to_nearest(grid: Grid, act_order: bool) -> None:
    weight, G = gaussian(6, 43), torch.diag(torch.linspace(1, 9, 43))
    found = gptq(weight, G, grid, damping=0.01, act_order=act_order, clip=False)
    assert torch.equal(found.dequantise(), RoundToNearest(grid).quantise(weight).dequantise())


def test_without_a_gram_matrix_it_is_rounding_to_nearest() -> None:
    weight = gaussian(6, 43)
    found = GptqQuantizer(Grid(4, 16)).quantise(weight, None)
    assert torch.equal(found.dequantise(), RoundToNearest(Grid(4, 16)).quantise(weight).dequantise())


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("grid", [Grid(3, 4), Grid(3, 50), Grid(3)], ids=str)
def test_passing_errors_on_block_by_block_changes_nothing(
    grid: Grid, act_order: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, G = gaussian(7, 130), gram(130)
    whole = gptq(weight, G, grid, damping=0.01, act_order=act_order, clip=False)
    monkeypatch.setattr(gptq_math, "BLOCK", 9)
    assert codes(gptq(weight, G, grid, damping=0.01, act_order=act_order, clip=False)) == codes(whole)


@given(st.integers(1, 600), st.integers(0, 300))
def test_blocks_cover_all_columns_and_groups_begin_where_all_was_passed_on(columns: int, group: int) -> None:
    found = list(blocks(columns, group))
    assert [start for start, _ in found[1:]] == [stop for _, stop in found[:-1]]
    assert (found[0][0], found[-1][1]) == (0, columns)
    assert max(stop - start for start, stop in found) <= gptq_math.BLOCK
    size = group or columns
    for begin in range(0, columns, size):
        start, stop = next(block for block in found if block[0] <= begin < block[1])
        assert begin == start or min(begin + size, columns) <= stop


def test_a_channel_that_was_silent_is_rounded_to_nearest_and_moves_no_other() -> None:
    weight, G = gaussian(6, 20), gram(20)
    silent = [3, 11]
    G[silent] = 0
    G[:, silent] = 0
    live = [column for column in range(20) if column not in silent]
    found = gptq(weight, G, Grid(3), damping=0.01, act_order=True, clip=False)
    nearest = RoundToNearest(Grid(3)).quantise(weight)
    assert [[row[k] for k in silent] for row in codes(found)] == [
        [r[k] for k in silent] for r in codes(nearest)
    ]
    louder = G + torch.diag((G.diagonal() == 0) * 1e3)
    other = gptq(weight, louder, Grid(3), damping=FAINT, act_order=True, clip=False)
    same = gptq(weight, G, Grid(3), damping=FAINT, act_order=True, clip=False)
    assert [[row[k] for k in live] for row in codes(same)] == [[r[k] for k in live] for r in codes(other)]


def test_inputs_that_were_all_silent_leave_rounding_to_nearest() -> None:
    weight = gaussian(3, 20)
    found = gptq(weight, torch.zeros(20, 20), Grid(4), damping=0.01, act_order=True, clip=False)
    assert torch.equal(found.dequantise(), RoundToNearest(Grid(4)).quantise(weight).dequantise())


def test_the_root_is_that_of_the_damped_inverse() -> None:
    G = gram(12).double()
    root = inverse_root(G, 0.1)
    damped = G + 0.1 * G.diagonal().mean() * torch.eye(12)
    assert torch.allclose(root.T @ root @ damped, torch.eye(12, dtype=torch.float64), atol=1e-8)
    assert torch.equal(root, root.triu())


def test_a_gram_matrix_with_fewer_inputs_than_columns_is_no_obstacle() -> None:
    weight, G = gaussian(6, 64), gram(64, tokens=5)
    quantizer = GptqQuantizer(Grid(3, 16))
    assert lost(weight, G, quantizer) < 0.2 * lost(weight, G, RoundToNearest(Grid(3, 16)))


def test_a_matrix_that_is_not_positive_definite_is_damped_more() -> None:
    G = torch.tensor([[1.0, 1.02], [1.02, 1.0]])  # an eigenvalue of -0.02: 0.001 and 0.01 are not enough
    root = inverse_root(G, 0.001)
    assert torch.allclose(root, inverse_root(G, 0.1))


def test_more_damping_is_nearer_to_rounding_to_nearest() -> None:
    weight, G = gaussian(8, 48), gram(48)
    nearest = RoundToNearest(Grid(3)).quantise(weight).dequantise()
    apart = [
        float(
            (gptq(weight, G, Grid(3), damping=each, act_order=True, clip=False).dequantise() - nearest)
            .abs()
            .sum()
        )
        for each in (0.01, 1.0, 1e6)
    ]
    assert apart[0] > apart[1] > apart[2] == 0


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_clipping_is_kept_where_it_loses_less(grid: Grid, act_order: bool) -> None:
    for seed in range(3):
        weight, G = gaussian(6, 43, seed), gram(43, seed=10 + seed)
        cut, whole = (lost(weight, G, GptqQuantizer(grid, act_order, clip)) for clip in (True, False))
        assert cut <= whole * (1 + 1e-5)


def test_clipping_pays_where_a_group_has_an_outlier() -> None:
    weight, G = gaussian(24, 48), gram(48)
    weight[:, ::16] *= 3
    cut, whole = (lost(weight, G, GptqQuantizer(Grid(3, 16), clip=clip)) for clip in (True, False))
    assert cut < 0.95 * whole


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused_by_name(value: float) -> None:
    weight, G = gaussian(3, 4), torch.eye(4)
    quantizer = GptqQuantizer(Grid(4))
    with pytest.raises(NonFinite, match="Gram matrix"):
        quantizer.quantise(weight, G * value)
    with pytest.raises(NonFinite, match="weight"):
        quantizer.quantise(weight * value, G)
    with pytest.raises(Unsupported, match="65504"):
        quantizer.quantise(weight * 1e6, G)


def test_corrections_that_grow_beyond_float16_are_an_error_that_names_the_knob() -> None:
    # The first group is off by up to half its scale, 3750, and the next column makes up for 200 times that.
    weight = torch.tensor([[60000.0, 3700.0, 1.0]])
    G = torch.tensor([[1.0, 0.0, 0.0], [0.0, 40001.0, 200.0], [0.0, 200.0, 1.0]])
    with pytest.raises(NonFinite, match=r"float16[\s\S]*damping"):
        gptq(weight, G, Grid(4, 2), damping=FAINT, act_order=False, clip=False)


def test_quantizers_that_differ_give_plans_that_differ(llama: DenseModel) -> None:
    profile = Profiler(llama, small.corpus(), small.CONTEXT).profile([])
    common: dict[str, Value] = {"quantize": "gptq", "quantize.group_size": 16}
    given: list[dict[str, Value]] = [
        common,
        {**common, "quantize.act_order": False},
        {**common, "quantize.damping": 0.1},
        {**common, "quantize.clip": False},
        {**common, "quantize.bits": 3},
        {**common, "quantize": "rtn"},
    ]
    plans = [plan_of(profile, Candidate.of(values)) for values in given]
    assert len({plan.hash for plan in plans}) == len(plans)
    assert len({plan.weight_bytes for plan in [*plans[:4], plans[-1]]}) == 1


@pytest.mark.skipif(not ASSETS.is_dir(), reason=f"no models and texts at {ASSETS}")
def test_on_a_published_model_gptq_keeps_more_than_awq_and_awq_more_than_rounding() -> None:
    dense = load_model(ModelSource(source=str(ASSETS / "models" / "stories260K")))
    stories = str(ASSETS / "text" / "tinystories_clean.json")
    source = TextSource(documents=stories, limit=60)
    text = read_corpus(source, Role.EVALUATION, dense.tokenizer, dense.context)
    known = replace(text, sequences=text.sequences[20:], digest=f"{text.digest}-last")
    base = Profiler(dense, known, dense.context)
    moved = {}
    for method in ("gptq", "awq", "rtn"):
        asked = Candidate.of(
            {
                "quantize": method,
                "quantize.bits": 3,
                "quantize.group_size": 32,
                "quantize.last_group": "short",
                **({"quantize.alpha_steps": 4} if method == "awq" else {}),
            }
        )
        plan = plan_of(base.profile(preparations_of(asked)), asked)
        scores = score(compressed(base, asked, plan), text.sequences[:20], dense.module)
        assert scores.kl is not None
        moved[method] = float(scores.kl.sum() / scores.tokens.sum())
    assert 1.05 * moved["gptq"] < moved["awq"] < 0.8 * moved["rtn"]
