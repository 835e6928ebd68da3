"""A trial that has some of its figures already is measured for the others alone."""

from pathlib import Path

import pytest

from hpo.run.asked import ALWAYS
from hpo.run.job import TIERS, Job
from hpo.run.workbench import Workbench
from hpo.space import Candidate
from tests.run.healing import HEALED, healing_study, measured, stages_of

TIMED = ("prefill_latency", "prefill_latency_ratio")
"""Told together."""


@pytest.fixture
def healer(short_reference: Path) -> Workbench:
    made = Workbench(healing_study().to_mapping())
    made.setup()
    return made


def test_a_job_of_which_all_but_a_timing_is_known_compresses_heals_and_times(healer: Workbench) -> None:
    whole = stages_of(healer, Job(1, 1, Candidate.of(HEALED), ""))
    assert list(whole) == ["compress", "screen", "heal", "heal_on", "measure", "time"]
    assert {result.failure for result in whole.values()} == {None}
    known = tuple(name for name in dict.fromkeys(measured(whole)) if name != "prefill_latency")
    assert {"perplexity", "nll", "kl_to_dense", "weight_memory", "macs"} <= set(known)

    again = stages_of(healer, Job(1, 2, Candidate.of(HEALED), "", known=known))
    assert list(again) == ["compress", "heal", "heal_on", "time"]
    assert {result.failure for result in again.values()} == {None}
    assert measured(again) == ["prefill_latency"]
    # the model is the same, and a completed trial is not judged a second time
    assert again["heal_on"].curve == whole["heal_on"].curve
    told = {**whole["heal"].notes, **whole["heal_on"].notes}
    kept = {**again["heal"].notes, **again["heal_on"].notes}
    assert kept == {name: note for name, note in told.items() if name not in TIERS}
    assert set(told) > set(kept) > {"heal_steps"}


@pytest.mark.parametrize(
    ("left", "stages"),
    [
        (["kl_to_dense"], ["compress", "heal", "heal_on", "measure"]),
        (["kl_to_dense", *TIMED], ["compress", "heal", "heal_on", "measure", "time"]),
        ([], ["compress"]),
    ],
)
def test_only_what_is_left_is_measured(healer: Workbench, left: list[str], stages: list[str]) -> None:
    everything = (*ALWAYS, "kl_to_dense", *TIMED)
    known = tuple(metric for metric in everything if metric not in left)
    found = stages_of(healer, Job(1, 2, Candidate.of(HEALED), "", known=known))
    assert {result.failure for result in found.values()} == {None}
    assert list(found) == stages
    assert measured(found) == left, "perplexity is measured together with the divergence, and left out"


def test_of_the_dense_model_too_only_what_is_left_is_measured(healer: Workbench) -> None:
    known = (*ALWAYS, "kl_to_dense")
    found = stages_of(healer, Job(0, 2, Candidate(), "", known=known))
    assert list(found) == ["compress", "time"]
    assert measured(found) == list(TIMED)


def test_the_environment_names_the_evaluation_text(healer: Workbench) -> None:
    assert healer.setup().environment["evaluation"] == healer.evaluation.digest != healer.calibration.digest
