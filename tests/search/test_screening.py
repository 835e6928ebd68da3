"""What early figures say of a trial, and when they are reason enough to stop it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from hpo.search.botorch_import import importing_botorch

with importing_botorch():
    import torch

    from hpo.search.process import Lesson, fit, left_out
    from hpo.search.screening import Screening
    from hpo.search.tiers import FEWEST, Expected, Forecaster, seen

from hpo.problem import on_front
from hpo.search.outcomes import NoModel, Scale, box
from hpo.trial import Limit, Objective, Trial
from tests.search.tiered import PROBLEM, damage, finished, history, point, running


def test_a_bound_is_the_prediction_and_an_error_that_few_others_exceeded() -> None:
    # by hand: of 19 errors the least is -3; at 95 % the bound lies there, at 90 % at the second least
    errors = np.array([0.5] * 17 + [-3.0, -1.0])
    scale = Scale(log=False, edge=1e9, width=1.0, centre=0.0, spread=1.0)
    expected = Expected(10.0, scale, errors)
    assert expected.bound(0.95) == pytest.approx(7.0)
    assert expected.bound(0.90) == pytest.approx(9.0)
    assert expected.loss == pytest.approx(10.0)


def test_nothing_is_ruled_out_by_too_few_errors() -> None:
    scale = Scale(log=False, edge=1e9, width=1.0, centre=0.0, spread=1.0)
    assert Expected(10.0, scale, np.zeros(18)).bound(0.95) == -np.inf
    assert Expected(10.0, scale, np.zeros(19)).bound(0.95) == 10.0


def test_errors_of_leaving_one_out_equal_those_of_refitting_without_it() -> None:
    rng = np.random.default_rng(0)
    rows, outcomes = rng.random((12, 2)), rng.normal(size=12)
    lesson = Lesson.of(rows, outcomes)
    model = fit(lesson)
    expected, deviations = left_out(model, lesson)
    for left in (0, 5, 11):
        kept = [i for i in range(12) if i != left]
        with torch.no_grad():
            model.set_train_data(torch.from_numpy(rows[kept]), torch.from_numpy(outcomes[kept]), strict=False)
            found = model.posterior(torch.from_numpy(rows[[left]]))
            noise = float(model.likelihood.second_noise) + 1e-6
            model.set_train_data(torch.from_numpy(rows), torch.from_numpy(outcomes), strict=False)
        assert expected[left] == pytest.approx(float(found.mean), abs=1e-5)
        assert deviations[left] == pytest.approx((float(found.variance) + noise) ** 0.5, rel=1e-4)


def test_tiers_tell_what_the_plan_does_not() -> None:
    told = history(40)
    trial = running(99, point(0.6, 0.8))
    forecaster = Forecaster.of(PROBLEM, told, seen(PROBLEM, trial), box(PROBLEM, told))
    expected = forecaster.expected([trial])[0]
    truth = 5 * np.exp(damage(trial.candidate))
    assert set(expected) == {0}  # bytes are known
    assert expected[0].loss == pytest.approx(truth, rel=0.1)
    assert expected[0].bound(0.95) < truth


def test_a_figure_better_than_any_before_is_no_trouble() -> None:
    told = history(40)
    perfect = replace(running(99, point(0.6, 0.0)), notes={"kl": 0.0})
    forecaster = Forecaster.of(PROBLEM, told, ("kl",), box(PROBLEM, told))
    best = min(float(t.notes["kl"]) for t in told if "kl" in t.notes)
    as_good = replace(perfect, notes={"kl": best})
    found, known = (forecaster.expected([t])[0][0].loss for t in (perfect, as_good))
    assert np.isfinite(found)
    assert found == known


def test_too_few_trials_with_the_same_tiers_say_nothing() -> None:
    told = history(FEWEST - 2)
    with pytest.raises(NoModel, match="6 trials have shown kl, 8 are needed"):
        Forecaster.of(PROBLEM, told, ("kl",), box(PROBLEM, told))
    assert Screening(PROBLEM).verdict(told, running(99, point(0.9, 1.0))) == ""


def test_a_trial_that_even_at_its_best_is_beaten_is_stopped() -> None:
    told = history(40)
    best = min(told[1:], key=lambda t: t.value("perplexity") or 0)
    told.append(finished(running(50, point(0.3, 0.0, "some"))))
    why = Screening(PROBLEM).verdict(told, running(99, point(0.9, 1.0)))
    assert "is better in everything than this one may be expected to be" in why
    assert best.number in range(1, 51)


def test_a_trial_that_may_be_on_the_front_goes_on() -> None:
    told = history(40)
    for keep in (0.1, 0.3, 0.6):
        assert Screening(PROBLEM).verdict(told, running(99, point(keep, 0.0, "some"))) == ""


def test_a_trial_beyond_its_limit_at_best_is_stopped_and_the_limit_is_named() -> None:
    told = history(40)
    strict = replace(PROBLEM, objectives=(replace_limit(1.3), PROBLEM.objectives[1]))
    why = Screening(strict).verdict(told, running(99, point(0.1, 1.0)))
    assert why.startswith("perplexity will be")
    assert "at best, beyond its limit, at a confidence of 95%" in why


def replace_limit(ratio: float) -> Objective:
    return Objective(metric="perplexity", limit=Limit(ratio_to_dense=ratio))


@pytest.mark.parametrize("origin", ["anchor:svd", "given:0"])
def test_what_a_person_or_the_study_itself_asked_for_is_never_stopped(origin: str) -> None:
    told = history(40)
    told.append(finished(running(50, point(0.3, 0.0, "some"))))
    assert Screening(PROBLEM).verdict(told, running(99, point(0.9, 1.0), origin)) == ""


def test_a_trial_without_tiers_goes_on() -> None:
    told = history(40)
    bare = replace(running(99, point(0.9, 1.0)), notes={})
    assert Screening(PROBLEM).verdict(told, bare) == ""


def test_few_members_of_the_front_are_lost_to_stopping() -> None:
    lost = members = stopped = 0
    for seed in range(2):
        screening, told = Screening(PROBLEM), history(24, seed)
        whole = list(told)
        rng = np.random.default_rng([seed, 1])
        for number in range(100, 140):
            keep, luck = rng.random(2)
            heal = "some" if rng.random() < 0.5 else "none"
            trial = running(number, point(0.1 + 0.9 * float(keep), float(luck), heal))
            whole.append(finished(trial))
            if screening.verdict(told, trial):
                stopped += 1
            else:
                told.append(whole[-1])
        best = {t.number for t, on in zip(whole, _front(whole), strict=True) if on}
        members += len(best)
        lost += len(best - {t.number for t in told})
    assert stopped > 20  # of 80: most are beaten
    assert lost / members <= 0.02


def _front(trials: Sequence[Trial]) -> list[bool]:
    return [bool(on) for on in on_front(PROBLEM.objectives, trials)]
