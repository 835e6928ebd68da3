"""One healing serves every plan that differs only in what comes after it."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors import SafetensorError

from hpo.compress import applying
from hpo.compress.applying import compressed, heal_seed, healing
from hpo.compress.bases import WHITENED
from hpo.compress.method import Healed, Healing
from hpo.compress.pausing import run_out
from hpo.compress.plan import Plan
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.room import MOST_GIB
from hpo.compress.shared_healing import SharedHealing
from hpo.errors import UsageError
from hpo.models.cache import cache_dir
from hpo.models.dense import DenseModel
from hpo.space import Candidate
from tests.compress import small
from tests.disks import filled, small_disk

SORTS: dict[str, dict[str, Any]] = {
    "factors": {"factorise": "whitened_svd", "factorise.keep_ratio": 0.5},
    "pruned and sparse": {
        "prune": "wanda_sp",
        "prune.keep_ratio": 0.7,
        "sparsify": "magnitude",
        "sparsify.sparsity": 0.3,
    },
    "bases and an embedding": {
        "embed": "tt_embedding",
        "embed.keep_ratio": 0.5,
        "factorise": "basis_sharing",
        "factorise.keep_ratio": 0.5,
    },
}
ROUNDED = {"quantize": "rtn", "quantize.bits": 4, "quantize.group_size": 8}


@pytest.fixture
def base(llama: DenseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profiler:
    monkeypatch.setenv("HPO_CACHE", str(tmp_path))
    return Profiler(llama, small.corpus(12), small.CONTEXT)


def asked(sort: str, **more: Any) -> Candidate:
    heal: dict[str, Any] = {"heal": "fine_tune", "heal.steps": 3, "heal.learning_rate": 3e-3}
    return Candidate.of({**SORTS[sort], **heal, **more})


def made(base: Profiler, candidate: Candidate, share: bool) -> tuple[torch.Tensor, Healed, Plan]:
    """Return the logits of a compressed and healed model, how its healing went, and its plan."""
    plan = plan_of(base.profile((WHITENED, *preparations_of(candidate))), candidate)
    model = compressed(base, candidate, plan)
    outcome = run_out(healing(base, candidate, plan, model, share=share))
    return small.logits(model), outcome, plan


def kept() -> list[Path]:
    return sorted(path.parent for path in (cache_dir() / "healings").glob("*/*/manifest.json"))


@pytest.mark.parametrize("sort", SORTS)
def test_a_second_rounding_takes_the_healing_of_the_first(
    base: Profiler, sort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, first, plan = made(base, asked(sort), share=True)
    alone, _, rounded = made(base, asked(sort, **ROUNDED), share=False)
    assert not first.shared
    assert plan.healed_as == plan.hash == rounded.healed_as != rounded.hash
    assert heal_seed(plan) == heal_seed(rounded)

    def never(*_: object) -> Healing:
        raise AssertionError("healed a second time")

    monkeypatch.setattr(applying, "_by_healer", never)
    again, second, _ = made(base, asked(sort), share=True)
    shared, third, _ = made(base, asked(sort, **ROUNDED), share=True)
    assert torch.equal(again, whole)
    assert torch.equal(shared, alone)
    assert first.curve is not None
    assert [step for step, _ in first.curve.trained] == [1, 2, 3]
    for outcome in (second, third):
        assert outcome.shared == plan.hash
        assert outcome.curve == first.curve
        assert (outcome.before, outcome.after, outcome.steps) == (first.before, first.after, first.steps)


def test_another_healing_of_the_same_factors_is_not_taken(base: Profiler) -> None:
    made(base, asked("factors"), share=True)
    _, outcome, _ = made(base, asked("factors", **{"heal.steps": 4}), share=True)
    assert not outcome.shared
    assert len(kept()) == 2


def test_adapters_that_stay_are_not_shared(base: Profiler) -> None:
    candidate = asked("factors", heal="lora", **{"heal.adapter": "kept", "heal.rank": 2})
    for _ in range(2):
        _, outcome, _ = made(base, candidate, share=True)
        assert not outcome.shared
    assert kept() == []


def test_a_damaged_entry_is_healed_again(base: Profiler) -> None:
    whole, _, _ = made(base, asked("factors"), share=True)
    (entry,) = kept()
    (entry / "state.safetensors").write_bytes(b"torn")
    again, outcome, _ = made(base, asked("factors"), share=True)
    assert not outcome.shared
    assert torch.equal(again, whole)
    assert made(base, asked("factors"), share=True)[1].shared


def test_the_entries_used_longest_ago_make_room(base: Profiler, monkeypatch: pytest.MonkeyPatch) -> None:
    made(base, asked("factors"), share=True)
    (entry,) = kept()
    size = sum(file.stat().st_size for file in entry.iterdir())
    monkeypatch.setenv(MOST_GIB, str(2.5 * size / 2**30))  # room for two
    others = [asked("factors", **{"heal.steps": steps}) for steps in (4, 5)]
    made(base, others[0], share=True)
    assert made(base, asked("factors"), share=True)[1].shared  # used again: now the other is the oldest
    made(base, others[1], share=True)
    assert len(kept()) == 2
    assert made(base, asked("factors"), share=True)[1].shared
    assert not made(base, others[0], share=True)[1].shared


def test_a_full_disk_costs_later_plans_the_healing_and_this_one_nothing(
    base: Profiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, first, _ = made(base, asked("factors"), share=False)
    with small_disk(tmp_path / "disk") as disk:
        ballast = filled(disk)
        with monkeypatch.context() as patch:
            patch.setattr("hpo.compress.shared_healing.cache_dir", lambda: disk)
            if ballast is None:
                refusal = SafetensorError("Error while serializing: I/O error: No space left on device")
                patch.setattr("hpo.compress.shared_healing.save_file", Mock(side_effect=refusal))
            found, outcome, _ = made(base, asked("factors"), share=True)
        assert "No space left" in caplog.text
        assert outcome == first
        assert torch.equal(found, whole)
        assert [path for path in disk.rglob("*.safetensors") if path.is_file()] == []
        if ballast is not None:
            ballast.unlink()
        monkeypatch.setattr("hpo.compress.shared_healing.cache_dir", lambda: disk)
        made(base, asked("factors"), share=True)
        assert made(base, asked("factors"), share=True)[1].shared


def test_room_of_nothing_keeps_nothing(base: Profiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MOST_GIB, "0")
    made(base, asked("factors"), share=True)
    assert kept() == []


def test_room_that_is_no_number_is_refused(base: Profiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MOST_GIB, "plenty")
    with pytest.raises(UsageError, match="HPO_HEALINGS_GIB is 'plenty'"):
        made(base, asked("factors"), share=True)


def test_a_model_that_it_does_not_fit_is_left_alone(base: Profiler) -> None:
    _, _, plan = made(base, asked("factors"), share=True)
    candidate = asked("factors", **{"factorise.keep_ratio": 0.3})
    other = plan_of(base.profile([WHITENED]), candidate)
    model = compressed(base, candidate, other)
    before = small.logits(model)
    assert SharedHealing(base.store.key, plan.healed_as).given_to(model) is None
    assert torch.equal(small.logits(model), before)


def test_what_others_are_building_or_removing_is_let_be(
    base: Profiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(base, asked("factors"), share=True)
    (entry,) = kept()
    building = entry.with_name(".another.tmp-x")
    building.mkdir()
    (building / "manifest.json").write_text("{}")
    (entry.with_name("gone")).mkdir()
    (entry.with_name("gone") / "manifest.json").symlink_to(tmp_path / "removed in this moment")
    monkeypatch.setenv(MOST_GIB, "1e-9")  # room for nothing
    made(base, asked("factors", **{"heal.steps": 4}), share=True)
    assert building.exists()
    assert not entry.exists()
