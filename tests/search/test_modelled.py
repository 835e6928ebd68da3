"""Choosing by a model, under a time limit and in batches."""

import logging

import numpy as np
import pytest

from hpo.search.botorch_import import importing_botorch
from hpo.search.sobol import SobolSampler
from tests.search.problems import compression, dtlz2

with importing_botorch():
    from hpo.search import modelled
    from hpo.search.judge import Judge
    from hpo.search.modelled import propose
    from hpo.search.process import reproducible


def test_when_time_is_up_the_rest_of_a_batch_is_quasi_random_and_said_to_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    toy = compression()
    history = toy.search(SobolSampler(), 12, seed=0)
    monkeypatch.setattr(modelled, "PATIENCE_S", 0.0)
    with caplog.at_level(logging.WARNING):
        found = propose(toy.problem, history, [], 4, seed=0)
    assert "the last 4 of the batch are quasi-random" in caplog.text
    plans = toy.problem.preview(found).plans
    assert len(set(plans)) == 4
    assert not set(plans) & {trial.plan_hash for trial in history}


def test_within_the_time_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    toy = dtlz2()
    with caplog.at_level(logging.WARNING):
        assert len(propose(toy.problem, toy.search(SobolSampler(), 12, seed=0), [], 2, seed=0)) == 2
    assert not caplog.records


def test_only_trials_that_may_be_on_the_front_are_compared_with() -> None:
    toy = dtlz2()
    history = toy.search(SobolSampler(), 40, seed=0)
    with reproducible(0):
        judge = Judge.of(toy.problem, history, np.random.default_rng(0))
    rivals = set(judge.rivals.candidates)
    frame = toy.problem.frame(history)
    assert frame is not None
    alone = [frame.hypervolume(toy.problem.losses([t for t in history if t is not left])) for left in history]
    needed = {t.candidate for t, without in zip(history, alone, strict=True) if without < max(alone) - 1e-3}
    assert needed <= rivals, "whoever adds to the front is among them"
    assert len(rivals) < len(history)


def test_a_candidate_just_like_one_under_way_promises_less() -> None:
    toy = dtlz2()
    history = toy.search(SobolSampler(), 30, seed=0)
    asked = propose(toy.problem, history, [], 1, seed=0)
    rng = np.random.default_rng(0)
    with reproducible(0):
        judge = Judge.of(toy.problem, history, rng)
        pool = type(judge.rivals).of(toy.problem, asked)
        before, after = judge.scores(pool), judge.after(pool).scores(pool)
    assert after < 0.1 * before
