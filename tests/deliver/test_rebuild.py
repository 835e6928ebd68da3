"""The model of a trial is made again, and only if it is that model."""

from dataclasses import replace

import pytest

from hpo.compress import applying
from hpo.deliver import rebuild as rebuilding
from hpo.deliver.rebuild import Rebuilt, rebuild
from hpo.errors import HpoError
from hpo.trial import Measurement, Trial
from tests.deliver.conftest import KINDS, Home


def _with_nll(trial: Trial, factor: float) -> Trial:
    """Return the trial as if another nll had been measured."""

    def changed(m: Measurement) -> Measurement:
        return replace(m, value=m.value * factor) if m.metric == "nll" else m

    return replace(trial, measurements=tuple(map(changed, trial.measurements)))


@pytest.mark.parametrize("number", range(len(KINDS)), ids=KINDS)
def test_a_trial_is_rebuilt_up_to_the_last_bits(home: Home, number: int) -> None:
    # Not to the bit: matrix products of torch on a CPU depend on where in memory a matrix lies.
    rebuilt = home.rebuilt("tiny", number)
    assert abs(rebuilt.difference) < 1e-6
    assert rebuilt.is_same


def test_healing_is_repeated_with_the_seed_of_the_plan(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home.trial("tiny", 2).notes["heal_kept"] == 1.0
    first, second = (home.rebuilt("tiny", 2).model.state_dict() for _ in range(2))
    monkeypatch.setattr(applying, "heal_seed", lambda plan: 1)
    monkeypatch.setattr(rebuilding, "REFUSED", 1.0)
    other = home.rebuilt("tiny", 2).model.state_dict()
    left = "model.layers.0.mlp.down_proj.left"
    near, far = (float((first[left] - found[left]).abs().max()) for found in (second, other))
    assert near < 0.01 * far


def test_another_plan_under_the_same_candidate_is_refused(home: Home) -> None:
    trial = replace(home.trial("tiny", 1), plan_hash="0123456789abcdef")
    with pytest.raises(HpoError, match="has the plan 0123456789abcdef, but its candidate gives") as caught:
        rebuild(home.record("tiny"), trial)
    assert "has changed since (the study ran with compression-hpo" in caught.value.hint


def test_another_model_or_calibration_text_is_refused(home: Home) -> None:
    record = home.record("tiny")
    record = replace(record, environment={**record.environment, "profile": "another"})
    with pytest.raises(HpoError, match="is not the one that study 'tiny' was launched with: profile another"):
        rebuild(record, home.trial("tiny", 1))


def test_a_loss_more_than_one_percent_off_is_refused(home: Home) -> None:
    with pytest.raises(HpoError, match=r"rebuilt, trial 1 of 'tiny' has nll .* -1\.96 %"):
        rebuild(home.record("tiny"), _with_nll(home.trial("tiny", 1), 1.02))


def test_a_loss_half_a_percent_off_is_told_but_not_refused(home: Home) -> None:
    rebuilt = rebuild(home.record("tiny"), _with_nll(home.trial("tiny", 1), 1 / 1.005))
    assert rebuilt.difference == pytest.approx(0.005)
    assert not rebuilt.is_same


def test_a_loss_that_is_no_number_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilding, "mean_nll", lambda model, corpus: float("nan"))
    with pytest.raises(HpoError, match="has nll nan"):
        home.rebuilt("tiny", 1)


def test_a_trial_without_a_loss_cannot_be_compared(home: Home) -> None:
    with pytest.raises(HpoError, match="has no nll"):
        rebuild(home.record("tiny"), replace(home.trial("tiny", 1), measurements=()))


def test_the_dense_model_is_not_touched_by_rebuilding(home: Home) -> None:
    rebuilt: Rebuilt = home.rebuilt("gpt2", 1)
    dense = rebuilt.dense.module.get_submodule("transformer.h.0.mlp.c_fc")
    assert type(dense).__name__ == "Conv1D"
    factored = rebuilt.model.get_submodule("transformer.h.0.mlp.c_fc")
    assert type(factored).__name__ == "LowRankLinear"
    assert factored.bias is not None
