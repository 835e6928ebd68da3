"""Healing that starts from the healed factors of another plan."""

import pytest
import torch

from hpo.compress.applying import compressed, healed
from hpo.compress.bases import WHITENED
from hpo.compress.layers import MpoLinear
from hpo.compress.mpo_math import full_cores, sliced
from hpo.compress.planner import plan_of
from hpo.compress.profiling import Profiler
from hpo.compress.warm import fitted, fitted_cores, has_healed, keep_healed, start_from
from hpo.models.dense import DenseModel
from hpo.models.text import Corpus
from hpo.space import Candidate
from tests.compress import small


def _drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_a_smaller_rank_takes_the_best_part_of_the_parents_product() -> None:
    healed_left, healed_right = _drawn(6, 4), _drawn(4, 5)
    left, right = fitted(healed_left, healed_right, _drawn(6, 2), _drawn(2, 5))
    u, s, vh = torch.linalg.svd(healed_left @ healed_right)
    assert left.shape == (6, 2)
    assert torch.allclose(left @ right, (u[:, :2] * s[:2]) @ vh[:2])


def test_a_larger_rank_keeps_the_parents_product_and_adds_what_it_never_had() -> None:
    # by hand: the parent has rank 1; the fresh second direction is (0, 1)' (3, 0)
    parent = torch.tensor([[2.0], [0.0]]), torch.tensor([[1.0, 1.0]])
    fresh = torch.tensor([[9.0, 0.0], [9.0, 1.0]]), torch.tensor([[9.0, 9.0], [3.0, 0.0]])
    left, right = fitted(*parent, *fresh)
    assert (left @ right).tolist() == [[2.0, 2.0], [3.0, 0.0]]


@pytest.mark.parametrize(("parent", "wanted"), [(3, 5), (5, 3), (4, 4)])
def test_tensor_trains_are_fitted_to_other_bonds(parent: int, wanted: int) -> None:
    cores, _ = full_cores(_drawn(12, 12), (3, 4), (4, 3), 12)
    theirs = [core * 1.5 for core in sliced(cores, [parent])]  # as if healed: the matrix times 2.25
    ours = sliced(cores, [wanted])
    found = fitted_cores(theirs, ours)

    def matrix(values: list[torch.Tensor]) -> torch.Tensor:
        return MpoLinear(values, None, "rebuild").dense_weight().detach()

    assert [core.shape for core in found] == [core.shape for core in ours]
    if wanted >= parent:
        expected = matrix(theirs) + matrix(ours) - matrix(sliced(ours, [parent]))
        assert torch.allclose(matrix(found), expected)
    else:
        assert torch.allclose(matrix(found), 2.25 * matrix(ours))


def test_other_sites_keep_their_own_cores() -> None:
    theirs, _ = full_cores(_drawn(12, 12), (3, 4), (4, 3), 4)
    ours, _ = full_cores(_drawn(12, 12), (4, 3), (3, 4), 4)
    assert fitted_cores(theirs, ours) is ours


def _counting() -> Corpus:
    """Text that can be learnt: counting up, from a random start."""
    starts = torch.randint(0, small.VOCABULARY, (20,), generator=torch.Generator().manual_seed(3))
    sequences = tuple((start + torch.arange(small.CONTEXT)) % small.VOCABULARY for start in starts)
    return Corpus(sequences, bytes=1000, digest="counting")


def _candidate(keep_ratio: float) -> Candidate:
    return Candidate.of(
        {
            "factorise": "whitened_svd",
            "factorise.keep_ratio": keep_ratio,
            "heal": "fine_tune",
            "heal.steps": 12,
            "heal.learning_rate": 3e-3,
        }
    )


def test_a_healing_starts_where_the_parents_ended(llama: DenseModel) -> None:
    profiler = Profiler(llama, _counting(), small.CONTEXT)
    profile = profiler.profile([WHITENED])
    parent, child = _candidate(0.6), _candidate(0.5)
    plans = plan_of(profile, parent), plan_of(profile, child)
    model = compressed(profiler, parent, plans[0])
    first = healed(profiler, parent, plans[0], model, keep=True)
    assert first is not None
    assert first.kept_after
    assert not first.warm
    assert has_healed(profiler.store.key, plans[0].hash)

    outcomes = []
    for parent_plan in ("", plans[0].hash):
        model = compressed(profiler, child, plans[1])
        outcomes.append(healed(profiler, child, plans[1], model, parent_plan=parent_plan))
    fresh, warm = outcomes
    assert fresh is not None
    assert warm is not None
    assert (fresh.warm, warm.warm) == (False, True)
    assert warm.before < fresh.before


def test_factors_that_serve_worse_are_not_taken(llama: DenseModel) -> None:
    profiler = Profiler(llama, _counting(), small.CONTEXT)
    candidate = _candidate(0.5)
    plan = plan_of(profiler.profile([WHITENED]), candidate)
    keep_healed(compressed(profiler, candidate, plan), profiler.store.key, "never trained")
    model = compressed(profiler, candidate, plan)
    assert healed(profiler, candidate, plan, model) is not None
    before = small.logits(model)
    assert not start_from(model, profiler.store.key, "never trained", _counting())
    assert torch.equal(small.logits(model), before)
    assert not start_from(model, profiler.store.key, "never healed", _counting())
