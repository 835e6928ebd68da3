"""Which completed trials are measured again under other terms, and which are set aside."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from hpo.metric import METRICS, Source
from hpo.run.review import Review, review
from hpo.run.terms import Terms
from hpo.space import Candidate
from hpo.trial import Measurement, Objective, StageTime, Trial, TrialState, WrongState

OBJECTIVES = (Objective(metric="perplexity"), Objective(metric="prefill_latency"))
OLD, NEW = "cpu: old", "cpu: new"


def measured(name: str, value: float, device: str = OLD, source: Source = Source.MEASURED) -> Measurement:
    return Measurement(name, value, METRICS[name].unit, source, device=device)


def trial(number: int, perplexity: float, latency: float, origin: str = "sobol") -> Trial:
    found = (measured("perplexity", perplexity), measured("prefill_latency", latency))
    asked = Trial(number, Candidate.of({"x": number}), origin).started("worker", 1.0)
    return asked.advanced(StageTime("time", 2.0), found).completed(3.0)


def terms(device: str, *metrics: str, counter: str = "") -> Terms:
    objectives = tuple(Objective(metric=name) for name in metrics) or OBJECTIVES
    return Terms.of(objectives, device, counter)


TRIALS = (trial(0, 9.0, 9.0, "anchor:dense"), trial(1, 5.0, 8.0), trial(2, 6.0, 7.0), trial(3, 7.0, 9.0))


def judged(under: Terms, front: Sequence[int], trials: Sequence[Trial] = TRIALS) -> Review:
    return review(trials, under, front, lambda: ())


def test_what_was_once_measured_on_the_device_is_not_measured_again() -> None:
    once = replace(
        TRIALS[1], measurements=(measured("perplexity", 5.0), measured("prefill_latency", 2.0, NEW))
    )
    found = review(TRIALS, terms(NEW), (1, 2), lambda: (TRIALS[0], once))
    assert [t.number for t, _ in found.reopened] == [0, 2]
    restored = {t.number: [(m.metric, m.value) for m in left] for t, left in found.revised}
    assert restored == {1: [("perplexity", 5.0), ("prefill_latency", 2.0)], 3: [("perplexity", 7.0)]}


def test_nothing_becomes_of_trials_on_their_own_device() -> None:
    assert judged(terms(OLD), (1, 2)).is_empty


def test_on_another_device_anchors_the_front_and_the_unbeaten_are_measured_again() -> None:
    found = judged(terms(NEW), (2,))
    kept = {t.number: [m.metric for m in left] for t, left in found.reopened}
    assert kept == {0: ["perplexity"], 1: ["perplexity"], 2: ["perplexity"]}  # 1 has the best perplexity
    assert [(t.number, [m.metric for m in left]) for t, left in found.revised] == [(3, ["perplexity"])]


def test_a_quality_measured_elsewhere_counts_everywhere_a_latency_does_not() -> None:
    there = terms(NEW)
    assert there.hold(measured("perplexity", 5.0))
    assert not there.hold(measured("prefill_latency", 5.0))
    assert there.hold(measured("prefill_latency", 5.0, NEW))
    assert there.missing(TRIALS[1]) == ("prefill_latency",)


def test_modelled_energy_counts_on_any_device_without_a_counter_and_on_none_with_one() -> None:
    modelled = measured("energy", 3.0, OLD, Source.MODELLED)
    counted = measured("energy", 3.0, NEW)
    without, with_one = terms(NEW, "energy"), terms(NEW, "energy", counter="nvml")
    assert (without.hold(modelled), with_one.hold(modelled)) == (True, False)
    assert (without.hold(counted), with_one.hold(counted)) == (False, True)


def test_a_new_objective_is_measured_where_nothing_beats_a_trial_in_the_others() -> None:
    found = judged(terms(OLD, "perplexity", "prefill_latency", "decode_latency"), ())
    assert [t.number for t, _ in found.reopened] == [0, 1, 2], "the anchor, and what nothing beats"
    assert all(left == t.measurements for t, left in found.reopened), "what they have is kept"
    assert found.revised == (), "the others are as they were"


def test_a_dropped_objective_asks_for_nothing() -> None:
    assert judged(terms(NEW, "perplexity"), (1,)).is_empty


def test_trials_that_failed_or_were_stopped_are_left_alone() -> None:
    failed = replace(TRIALS[1], state=TrialState.FAILED)
    stopped = replace(TRIALS[2], state=TrialState.STOPPED)
    assert judged(terms(NEW), (1, 2), (failed, stopped)).is_empty


def test_a_reopened_trial_keeps_what_holds_through_every_further_attempt() -> None:
    kept = TRIALS[1].measurements[:1]
    again = TRIALS[1].reopened(kept)
    assert (again.state, again.attempt, again.measurements, again.stages) == (TrialState.WAITING, 2, kept, ())
    running = again.started("other", 4.0).advanced(
        StageTime("time", 1.0), [measured("prefill_latency", 4.0, NEW)]
    )
    assert running.value("prefill_latency") == 4.0
    lost = running.requeued()
    assert (lost.attempt, lost.measurements) == (3, kept)
    assert lost.started("third", 5.0).measurements == kept
    assert Trial.from_mapping(lost.to_mapping()) == lost


def test_a_trial_that_is_not_completed_can_be_neither_reopened_nor_revised() -> None:
    waiting = Trial(0, Candidate(), "sobol")
    with pytest.raises(WrongState):
        waiting.reopened(())
    with pytest.raises(WrongState):
        waiting.revised(())
