"""What the coordinator does, as log records: the listener of a study that writes to `logging`."""

import logging

from hpo.store.values import EventKind
from hpo.study import Study
from hpo.trial import Trial
from hpo.watch.logs import identify
from hpo.watch.wording import told

_log = logging.getLogger("hpo.coordinator")

_TROUBLE = (EventKind.FAILED, EventKind.REQUEUED)


class StudyLog:
    """A listener; each call is a record with the event's name and the trial's ids."""

    def __init__(self, study: Study) -> None:
        self._study = study
        identify(study=study.name)

    def say(self, text: str) -> None:
        """Record how far the set-up is, or that the study ends."""
        _log.info("%s", text, extra={"event": "progress"})

    def hear(self, kind: EventKind, trial: Trial) -> None:
        """Record what has become of a trial."""
        level = logging.WARNING if kind in _TROUBLE else logging.INFO
        ids = {"trial": trial.number, "attempt": trial.attempt, "worker": trial.worker}
        _log.log(level, "%s", told(kind, trial, self._study), extra={"event": str(kind), **ids})
