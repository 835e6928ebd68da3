"""How often each trial was tried in vain, by cause: survives a restart of the coordinator."""

from collections import Counter

from hpo.store.store import Store
from hpo.store.values import EventKind
from hpo.study import Study
from hpo.trial import Cause


class Tries:
    """Attempts that came to no end, by trial and cause."""

    def __init__(self, store: Store, study: Study) -> None:
        self._counts: Counter[tuple[int, Cause]] = Counter(
            (event.trial, Cause(event.payload.get("cause", Cause.LOST_WORKER)))
            for event in store.events_of(study.name, EventKind.LOST)
            if event.trial is not None
        )

    def count(self, trial: int, cause: Cause) -> int:
        """Count one more; return how many there are of this cause now."""
        self._counts[trial, cause] += 1
        return self._counts[trial, cause]
