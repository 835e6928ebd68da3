"""Nested healing: one run, several ranks."""

import pytest
import torch

from hpo.compress.layers import LowRankLinear
from hpo.compress.method import Patient
from hpo.compress.nested import Prefix
from hpo.compress.nested_math import drawn_shares, parsed_shares, rank_at
from hpo.errors import Unsupported
from hpo.models.dense import DenseModel
from hpo.space import Value
from tests.compress.healing import counting, heal, held_out_loss, patient, taught


@pytest.fixture
def dense() -> DenseModel:
    return taught()


def sick(dense: DenseModel, keep_ratio: float, **knobs: Value) -> Patient:
    factorised: dict[str, Value] = {"factorise": "whitened_svd", "factorise.keep_ratio": keep_ratio}
    healing = {"heal": "nested", "steps": 24, "learning_rate": 3e-3, "top_keep_ratio": 0.6, **knobs}
    return patient(dense, healing, factorised)


@pytest.mark.parametrize(
    ("share", "largest", "rank"), [(0.5, 10, 5), (0.51, 10, 6), (0.1 * 3, 10, 3), (1.0, 7, 7), (0.01, 7, 1)]
)
def test_a_share_of_a_rank_is_rounded_up(share: float, largest: int, rank: int) -> None:
    assert rank_at(share, largest) == rank


def test_shares_are_read_sorted_and_once() -> None:
    assert parsed_shares("1.0, 0.5,0.75,0.5") == (0.5, 0.75, 1.0)
    for text in ("0.5", "0,1", "0.5,1.2", "half"):
        with pytest.raises(ValueError, match=r"shares|float"):
            parsed_shares(text)


def test_every_share_is_drawn_about_equally_often() -> None:
    drawn = drawn_shares((0.5, 0.75, 1.0), 600, seed=3)
    assert drawn == drawn_shares((0.5, 0.75, 1.0), 600, seed=3)
    assert all(150 < drawn.count(share) < 250 for share in (0.5, 0.75, 1.0))


def test_a_prefix_computes_with_the_first_ranks_only() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right, bias = (torch.randn(*shape, generator=generator) for shape in ((5, 3), (3, 4), (5,)))
    prefix, x = Prefix(LowRankLinear(left, right, bias)), torch.randn(2, 4, generator=generator)
    prefix.rank = 2
    assert torch.allclose(prefix(x), x @ (left[:, :2] @ right[:2]).T + bias, atol=1e-5)


def test_trials_of_several_ranks_share_one_run_and_say_so(
    dense: DenseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = {}
    for keep_ratio in (0.6, 0.45, 0.3):
        found = sick(dense, keep_ratio)
        before = held_out_loss(found)
        outcomes[keep_ratio] = healed = heal(found, seed=int(100 * keep_ratio))
        assert healed.kept_after
        assert held_out_loss(found) == pytest.approx(healed.after, rel=1e-6)
        assert healed.after < before
        # whoever comes next does not train
        monkeypatch.setattr("hpo.compress.nested.Training", None)
    assert len({healed.shared for healed in outcomes.values()}) == 1
    assert outcomes[0.6].shared.startswith("nested-")


def test_other_knobs_are_another_run(dense: DenseModel) -> None:
    first = heal(sick(dense, 0.45, steps=3)).shared
    assert heal(sick(dense, 0.45, steps=4)).shared != first
    assert heal(sick(dense, 0.45, steps=3, top_keep_ratio=0.5)).shared != first


def test_a_shared_run_stops_early_by_all_its_ranks(dense: DenseModel) -> None:
    healed = heal(sick(dense, 0.45, steps=40, learning_rate=0.5, patience=1, check_every=2))
    assert 0 < healed.steps < 40


def test_uneven_ranks_are_refused(dense: DenseModel) -> None:
    uneven: dict[str, Value] = {
        "factorise": "whitened_svd",
        "factorise.keep_ratio": 0.5,
        "factorise.attention": 2.0,
    }
    with pytest.raises(Unsupported, match="uniform"):
        patient(dense, {"heal": "nested"}, uneven, counting())
    with pytest.raises(Unsupported, match="top_keep_ratio"):
        sick(dense, 0.65)
