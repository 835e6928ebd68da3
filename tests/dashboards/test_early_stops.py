"""What stopping saved, on trials whose stages are worked out by hand."""

import pytest

from dashboards.early_stops import early_stops, reason_rows, stage_rows
from hpo.trial import Cause, StageTime, Trial
from tests.dashboards.hand import asked


def trial(number: int, origin: str = "sobol", **stages: float) -> Trial:
    """Return a running trial that has done these stages, in seconds."""
    running = asked(number, origin).started("worker", 0.0)
    for stage, seconds in stages.items():
        running = running.advanced(StageTime(stage, seconds))
    return running


COMPLETED = (
    trial(0, "anchor:dense", measure=900).completed(1.0),
    trial(1, compress=1, screen=2, heal=10, measure=30).completed(1.0),
    trial(2, compress=1, screen=2, heal=20, measure=50).completed(1.0),
    trial(3, compress=1, screen=2, measure=40).completed(1.0),
)
STOPPED = (
    trial(4, compress=1, screen=2).stopped("its screen_kl of 0.5 is not below the 0.4 of trial 2", 1.0),
    trial(5, compress=1, screen=2).stopped("its screen_kl of 1.7e-3 is not below the 0.4 of trial 3", 1.0),
    trial(6, compress=1, screen=2, heal=12).stopped("trial 1 is better in everything", 1.0),
)


def test_saved_is_the_median_of_each_stage_that_was_spared() -> None:
    # Medians of trials 1 to 3: heal 10 of (10, 20, 0), measure 40 of (30, 50, 40); the anchor is no measure.
    stops = early_stops([*COMPLETED, *STOPPED])
    after = {group.stage: (group.trials, group.seconds, group.saved) for group in stops.after}
    assert after == {"screen": (2, 50, 100), "heal": (1, 40, 40)}
    assert stops.saved == 140


def test_the_sentence_calls_it_an_estimate_and_says_of_what() -> None:
    said = early_stops([*COMPLETED, *STOPPED]).words
    assert said.startswith("3 of 7 finished trials (42.9 %) stopped early. That saved about 2 min 20 s of")
    spent = 900 + 43 + 73 + 43 + 3 + 3 + 15
    assert f"{100 * 140 / (140 + spent):.1f} % of what seeing all of them through" in said
    assert "This is an estimate" in said
    assert "3 completed trials" in said


def test_a_stage_that_most_do_without_counts_as_nothing() -> None:
    rare = [*COMPLETED[2:], trial(9, compress=1, screen=2, measure=40).completed(1.0)]
    (group,) = early_stops([*rare, STOPPED[0]]).after
    assert group.seconds == 40


def test_a_trial_that_was_stopped_is_not_spared_what_it_did_after_the_screen() -> None:
    later = trial(6, compress=1, screen=2, heal=12, heal_on=3).stopped("", 1.0)
    (group,) = early_stops([*COMPLETED, later]).after
    assert (group.stage, group.seconds) == ("heal_on", 40)


def test_ways_that_end_in_one_stage_are_put_together() -> None:
    short = trial(7, screen=2).stopped("", 1.0)
    (group,) = early_stops([*COMPLETED, STOPPED[0], short]).after
    # One was spared 50 s, the other that had not compressed 51 s.
    assert (group.trials, group.seconds, group.saved) == (2, 50.5, 101)


def test_reasons_are_grouped_by_their_words_and_the_most_frequent_comes_first() -> None:
    rows = reason_rows(early_stops([*COMPLETED, *STOPPED]))
    assert rows == [
        (
            "its screen_kl of … is not below the … of trial …",
            "2",
            "its screen_kl of 1.7e-3 is not below the 0.4 of trial 3",
        ),
        ("trial … is better in everything", "1", "trial 1 is better in everything"),
    ]


def test_many_reasons_are_cut_and_their_number_is_kept() -> None:
    stopped = [trial(n).stopped("why " + "x" * n, 1.0) for n in range(1, 13)]
    rows = reason_rows(early_stops(stopped))
    assert len(rows) == 9
    assert rows[-1][:2] == ("other", "4")
    assert sum(int(count) for _, count, _ in rows) == 12


def test_before_any_trial_is_completed_there_is_no_estimate() -> None:
    stops = early_stops(STOPPED)
    assert stops.saved is None
    assert "can be estimated once a trial has completed" in stops.words
    assert stage_rows(stops)[0] == ("screen", "2", "–", "–")


def test_where_only_anchors_are_completed_the_estimate_stands_on_them() -> None:
    stops = early_stops([COMPLETED[0], STOPPED[0]])
    assert (stops.saved, stops.judged_by) == (900, 1)


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        ((), "No trial has finished yet."),
        ((asked(0),), "No trial has finished yet."),
        (COMPLETED, "None of the 4 finished trials was stopped early."),
        ((asked(0).failed(Cause.ERROR, "", 1.0),), "None of the 1 finished trial was stopped early."),
    ],
)
def test_where_nothing_was_stopped_it_says_so(trials: tuple[Trial, ...], said: str) -> None:
    stops = early_stops(trials)
    assert stops.words == said
    assert stage_rows(stops) == []


def test_a_trial_stopped_before_any_stage_is_shown_as_such() -> None:
    stops = early_stops([*COMPLETED, trial(8).stopped("", 1.0)])
    assert stage_rows(stops) == [("nothing yet", "1", "53 s", "53 s")]
    assert reason_rows(stops) == [("nothing was said", "1", "–")]
