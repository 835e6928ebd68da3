from typing import Any

import pytest

from dashboards.attempts import attempts_sentence, happenings
from hpo.store.store import Store
from hpo.store.values import Event, EventKind
from hpo.trial import Cause, Trial
from tests.dashboards.hand import asked
from tests.dashboards.storied import FAILED, NAME, NASTY, PARENT, write_story


def event(kind: EventKind, attempt: int = 1, **payload: Any) -> Event:
    return Event(1, 100.0, kind, 1, attempt, payload)


@pytest.mark.parametrize(
    ("happened", "what", "said"),
    [
        (event(EventKind.ASKED), "asked", "by sobol"),
        (event(EventKind.STARTED, worker="w-1"), "started", "on w-1"),
        (event(EventKind.STARTED), "started", ""),
        (event(EventKind.STAGE_DONE, stage="heal_on", seconds=61.0), "stage done", "heal on, 1 min 1 s"),
        (event(EventKind.STAGE_DONE), "stage done", ""),
        (
            event(EventKind.LOST, worker="w-1", why="its process died", seconds=12.0),
            "lost its worker",
            "w-1: its process died after 12 s in its stage",
        ),
        (
            event(EventKind.REQUEUED, why="the study was stopped"),
            "put back into the queue",
            "the study was stopped",
        ),
        (
            event(EventKind.CONFLICT, why="news of an attempt that is over"),
            "late news, not used",
            "news of an attempt that is over",
        ),
        (
            event(EventKind.REOPENED, why="energy of another device", stage="time", seconds=9.0),
            "to be measured again",
            "energy of another device",
        ),
        (event(EventKind.COMPLETED), "completed", ""),
        (event(EventKind.AMENDED), "amended", ""),
    ],
)
def test_an_event_is_said_in_words(happened: Event, what: str, said: str) -> None:
    (told,) = happenings(asked(1), [happened])
    assert (told.at, told.attempt, told.what, told.said) == (100.0, 1, what, said)


def test_a_failure_names_its_cause_and_its_words() -> None:
    failed = asked(1).failed(Cause.OUT_OF_MEMORY, "3.1 GiB", 5.0)
    (told,) = happenings(failed, [event(EventKind.FAILED)])
    assert told.said == "out of memory: 3.1 GiB"
    assert told.is_trouble
    assert not happenings(failed, [event(EventKind.STARTED)])[0].is_trouble


def test_a_stop_says_why() -> None:
    stopped = asked(1).started("w", 0.0).stopped("it is dominated", 5.0)
    assert happenings(stopped, [event(EventKind.STOPPED, after="heal")])[0].said == "it is dominated"


def test_later_attempts_say_what_became_of_the_earlier_ones_once_each() -> None:
    again: Trial = asked(1).started("w", 0.0).requeued().started("w", 1.0).requeued()
    why = [
        event(EventKind.REQUEUED, 2, why="its process died"),
        event(EventKind.REQUEUED, 3, why="its process died"),
    ]
    assert attempts_sentence(again, why) == "This is attempt 3. Before: its process died."
    assert attempts_sentence(again, []) == "This is attempt 3."
    assert attempts_sentence(asked(1), []) == "This is its first attempt."
    assert attempts_sentence(asked(1).failed(Cause.ERROR, "", 1.0), []) == ""


def test_the_events_of_a_stored_trial_tell_its_story(tmp_path: Any) -> None:
    with Store.open(write_story(tmp_path / "s.db")) as store:
        trial = store.trial(NAME, PARENT)
        told = happenings(trial, store.trial_events(NAME, PARENT))
        assert [h.what for h in told[:5]] == [
            "asked",
            "started",
            "lost its worker",
            "put back into the queue",
            "started",
        ]
        assert [h.attempt for h in told] == [1, 1, 1, 2, 2, 2, 2, 2, 2]
        failed = happenings(store.trial(NAME, FAILED), store.trial_events(NAME, FAILED))
    assert failed[-1].said == f"error: {NASTY}"
