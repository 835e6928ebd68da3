from dataclasses import replace

from dashboards.caveats import caveats
from hpo.metric import Source
from hpo.trial import Objective
from tests.dashboards.hand import OBJECTIVES, TRIALS, answered, asked, measurement, pair

ENERGY = (*OBJECTIVES, Objective(metric="energy", allow_modelled=True))


def test_a_clean_study_has_none() -> None:
    assert caveats(OBJECTIVES, TRIALS) == ()


def test_nothing_is_said_before_the_first_result() -> None:
    assert caveats(OBJECTIVES, (asked(0),)) == ()


def test_modelled_energy_is_said() -> None:
    modelled = answered(5, *TRIALS[1].measurements, measurement("energy", 2.0, source=Source.MODELLED))
    (said,) = caveats(ENERGY, (*TRIALS, modelled))
    assert said.startswith("Energy is modelled, not measured")


def test_a_missing_dense_model_is_said() -> None:
    (said,) = caveats(OBJECTIVES, TRIALS[1:])
    assert "dense model has not been measured" in said


def test_two_devices_in_one_metric_are_said() -> None:
    elsewhere = replace(measurement("perplexity", 12.0), device="cuda:h200")
    (said,) = caveats(OBJECTIVES, (*TRIALS, answered(5, elsewhere, measurement("weight_memory", 90.0))))
    assert "Perplexity was measured on 2 devices (cpu:test, cuda:h200)" in said


def test_noisy_front_members_are_named_and_noisy_losers_are_not() -> None:
    slow = replace(measurement("perplexity", 12.0), note="wall, noisy (7.0% between repeats)")
    front = answered(5, slow, measurement("weight_memory", 60.0))
    loser = answered(6, slow, measurement("weight_memory", 9999.0))
    (said,) = caveats(OBJECTIVES, (*TRIALS, front, loser))
    assert "1 front member (5)" in said


def test_an_anchor_that_nothing_beats_is_said_and_the_dense_model_is_not() -> None:
    (said,) = caveats(OBJECTIVES, (*TRIALS, pair(5, 11, 40, "anchor:int4")))
    assert said.startswith("The anchor int4 (trial 5) is on the front")
