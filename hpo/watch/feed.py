"""The log of a study, read from its store on from where it stopped; needs no coordinator."""

from collections.abc import Iterator

from hpo.store.store import Store
from hpo.store.values import Event, EventKind
from hpo.trial import Trial
from hpo.watch.line import Line
from hpo.watch.redaction import Redactor
from hpo.watch.wording import message_of

_CHUNK = 2000
"""Events that are read at once."""


class Feed:
    """The lines of a study or of one of its trials. Each `read` returns what is new since the last."""

    def __init__(
        self, store: Store, name: str, trial: int | None = None, redactor: Redactor | None = None
    ) -> None:
        """Raises:
        NotFound: there is no such study, or no such trial in it.
        """
        self._store, self._name, self._only = store, name, trial
        self._study = store.study(name).study
        self._redactor = redactor or Redactor()
        self._newest = 0
        self._trials: dict[int, Trial] = {}
        self._workers: dict[tuple[int, int], str] = {}
        if trial is not None:
            store.trial(name, trial)

    def read(self) -> Iterator[Line]:
        """Yield the events that are new, oldest first."""
        changed, newest = self._store.trials_since(self._name, self._newest)
        self._trials.update((trial.number, trial) for trial in changed)
        while self._newest < newest:
            events = self._store.events(self._name, self._newest, _CHUNK)
            if not events:
                return
            for event in events:
                if event.id > newest:  # its trial may stand as it was before it
                    return
                self._newest = event.id
                line = self._line(event)
                if self._only is None or event.trial == self._only:
                    yield line

    def _line(self, event: Event) -> Line:
        trial = None if event.trial is None else self._trials.get(event.trial)
        return Line(
            event.id,
            event.at,
            self._name,
            str(event.kind),
            event.trial,
            event.attempt,
            self._worker(event),
            self._redactor.text(message_of(event, trial, self._study)),
            self._redactor.value(dict(event.payload)),
        )

    def _worker(self, event: Event) -> str:
        """Return who has the trial in this attempt. What requeues one is noted with the attempt to come."""
        if event.trial is None or event.attempt is None:
            return ""
        if event.kind is EventKind.STARTED:
            self._workers[event.trial, event.attempt] = str(event.payload.get("worker", ""))
        said = str(event.payload.get("worker", ""))
        return said or self._workers.get((event.trial, event.attempt), "")
