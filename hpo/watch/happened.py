"""What the events of a study add up to: attempts that were lost, trials put back, by cause."""

from collections import Counter

from hpo.store.store import Store
from hpo.store.values import Event, EventKind

_CHUNK = 2000
"""Events that are read at once."""

INTERRUPTED = "interrupted"
"""Why a trial is tried again whose study was stopped, or whose coordinator was lost."""

LOST_WORKER = "lost_worker"


class Happened:
    """Counts over the events of one study, read on as there are new ones."""

    def __init__(self, newest: int = 0) -> None:
        """`newest`: the event after which to begin."""
        self.newest = newest
        self.retries: Counter[str] = Counter()
        """How often trials were put back into the queue, by cause."""
        self.lost: Counter[str] = Counter()
        """Attempts that ended with their worker, by cause."""
        self.lost_seconds = 0.0
        """For how long stages that came to no end had been going on."""
        self._lost: dict[int, str] = {}

    def read(self, store: Store, name: str, until: int) -> None:
        """Take in the events that are new, up to the one with the id `until`."""
        while self.newest < until:
            events = store.events(name, self.newest, _CHUNK)
            for event in events:
                if event.id > until:
                    return
                self.newest = event.id
                self._add(event)
            if not events:  # deleted meanwhile; whoever looks next is told so
                return

    def _add(self, event: Event) -> None:
        """A lost worker is noted first, with its cause; that its trial goes back into the queue follows."""
        if event.trial is None:
            return
        cause = str(event.payload.get("cause", ""))
        if event.kind is EventKind.LOST:
            self._lost[event.trial] = cause or LOST_WORKER
            self.lost[cause or LOST_WORKER] += 1
        elif event.kind is EventKind.REQUEUED:
            self.retries[cause or self._lost.pop(event.trial, INTERRUPTED)] += 1
        elif event.kind is EventKind.FAILED:
            self._lost.pop(event.trial, None)
        if event.kind in (EventKind.LOST, EventKind.REQUEUED):
            self.lost_seconds += float(event.payload.get("seconds", 0.0))
