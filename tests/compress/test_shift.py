"""A word that shifts ranks and bits layer by layer."""

from typing import Any

import numpy as np
import pytest

from hpo.compress.allocation import AllocationKnobs, budgeted_ranks
from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.mixed_bits import moved
from hpo.compress.plan import Plan
from hpo.compress.planner import plan_of
from hpo.compress.profile import ModelProfile
from hpo.compress.shift import LARGEST, parsed, written
from hpo.compress.sparse_plan import Sparse
from hpo.errors import Unsupported
from hpo.space import Candidate

LAYERS = 14
"""Of the small model: seven in each of two blocks."""


def two_layers() -> ModelProfile:
    """Return two layers of 30 x 60: a rank costs 90 weights, and 20 of them as much as the matrix."""
    shapes = tuple(LayerShape(f"b.{k}.fc", 30, 60, k, "mlp", f"b.{k}.fc") for k in range(2))
    return ModelProfile(Architecture(shapes, 0, 0, 0, 1, 32), "two")


def svd(profile: ModelProfile, **knobs: Any) -> Plan:
    given = {f"factorise.{name}": value for name, value in knobs.items()}
    return plan_of(profile, Candidate.of({"factorise": "svd", "factorise.keep_ratio": 0.5, **given}))


def rtn(profile: ModelProfile, **knobs: Any) -> Plan:
    given = {f"quantize.{name}": value for name, value in knobs.items()}
    return plan_of(profile, Candidate.of({"quantize": "rtn", "quantize.group_size": 16, **given}))


def test_a_shift_is_read_and_written() -> None:
    assert parsed("0,1,-1,0") == (0, 1, -1, 0)
    assert parsed("") == ()
    assert written(np.array([0, 12, -3])) == "0,12,-3"
    assert written(np.zeros(3, dtype=np.int64)) == ""


@pytest.mark.parametrize("word", ["1,", "1,x", "0.5,0", "--1,0", "+1,0", " 1,0", "²,0", f"{LARGEST + 1},0"])
def test_what_is_no_small_whole_number_is_refused(word: str, profile: ModelProfile) -> None:
    with pytest.raises(Unsupported, match=r"factorise\.shift: .*number \d of the shift is"):
        svd(profile, shift=word)


def wanda(profile: ModelProfile, **knobs: Any) -> Plan:
    given = {f"sparsify.{name}": value for name, value in knobs.items()}
    return plan_of(profile, Candidate.of({"sparsify": "wanda", "sparsify.sparsity": 0.5, **given}))


@pytest.mark.parametrize("plan", [svd, rtn, wanda])
def test_a_shift_of_another_number_of_layers_is_refused(plan: Any, profile: ModelProfile) -> None:
    with pytest.raises(Unsupported, match=f"3 numbers for {LAYERS} layers"):
        plan(profile, shift="1,-1,0")


@pytest.mark.parametrize("plan", [svd, rtn, wanda])
def test_zeros_are_the_same_plan_as_no_shift(plan: Any, profile: ModelProfile) -> None:
    zeros = ",".join("0" * LAYERS)
    assert plan(profile, shift=zeros).hash == plan(profile, shift="").hash == plan(profile).hash


def test_two_layers_keep_their_budget_to_the_rank() -> None:
    # Half the weights are 20 ranks. A step up and one down want 11 and 9.09 of them, fitted 10.95 and 9.05:
    # 10 and 9 rounded down, and the one rank left goes to the larger fraction.
    def ranks(shift: str) -> list[int]:
        return list(budgeted_ranks(two_layers(), AllocationKnobs(shift=shift), 0.5, "plain"))

    assert ranks("") == [10, 10]
    assert ranks("1,-1") == [11, 9]
    assert ranks("-2,1") == [9, 11]  # 8.26 and 11 fitted: 8.58 and 11.42
    assert ranks("3,3") == [10, 10]


def test_no_shift_goes_below_the_floor() -> None:
    ranks = budgeted_ranks(two_layers(), AllocationKnobs(shift="12,-12", floor=0.7), 0.5, "plain")
    assert ranks.tolist() == [13, 7]


def test_a_shift_of_ranks_keeps_the_share_of_weights(profile: ModelProfile) -> None:
    shift = ",".join(["2", "-2"] * (LAYERS // 2))
    plain, shifted = svd(profile), svd(profile, shift=shift)
    assert shifted.hash != plain.hash
    assert shifted.linear_parameters == pytest.approx(plain.linear_parameters, rel=0.02)


def test_bits_move_along_those_that_there_are_and_stay_within_them() -> None:
    assert moved(np.array([4, 4, 4, 2, 8, 3]), np.array([0, 1, -1, -5, 3, 2])).tolist() == [4, 8, 3, 2, 8, 8]


def test_layers_have_the_bits_of_their_shift(profile: ModelProfile) -> None:
    steps = [1, -1, -2] + [0] * (LAYERS - 3)
    plan = rtn(profile, bits=4, shift=",".join(map(str, steps)))
    sizes = [layer.costs.size for layer in plan.layers]
    same = rtn(profile, bits=4).layers
    assert sizes[0] == rtn(profile, bits=8).layers[0].costs.size
    assert sizes[1] == rtn(profile, bits=3).layers[1].costs.size
    assert sizes[2] == rtn(profile, bits=2).layers[2].costs.size
    assert plan.layers[3:] == same[3:]


def test_layers_have_the_zeros_of_their_shift(profile: ModelProfile) -> None:
    steps = [1, -1, -12] + [0] * (LAYERS - 3)
    plan = wanda(profile, shift=",".join(map(str, steps)))
    sparsities = [layer.pattern.sparsity for layer in plan.layers if isinstance(layer, Sparse)]
    assert sparsities == pytest.approx([0.48, 0.52, 0.74] + [0.5] * (LAYERS - 3))


def test_a_shift_that_leaves_no_weight_or_meets_a_fixed_pattern_is_refused(profile: ModelProfile) -> None:
    down = ",".join(["-12"] + ["0"] * (LAYERS - 1))
    with pytest.raises(Unsupported, match=r"0\.8 times sparsify\.attention=1, less -0\.24 by its shift"):
        wanda(profile, sparsity=0.8, shift=down)
    pattern = {"sparsify": "wanda", "sparsify.pattern": "2:4", "sparsify.shift": down}
    with pytest.raises(Unsupported, match="2:4 is the same everywhere"):
        plan_of(profile, Candidate.of(pattern))
