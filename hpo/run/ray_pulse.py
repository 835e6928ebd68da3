"""Whether a worker lives: it is asked every few seconds, and nobody waits for the answer."""

from contextlib import suppress
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError

from hpo.run.ray_worker import Beat


class Pulse:
    """The signs of life of one actor.

    Silence is summed up from look to look, of which none counts for more than `most_s`: a caller that was
    itself away, suspended or stopped, has not listened, and blames no worker for it.
    """

    def __init__(self, actor: ActorHandle, now: float, most_s: float) -> None:
        self._actor, self._looked, self._most_s = actor, now, most_s
        self._asked: Any = None
        self.last: Beat | None = None
        """None as long as the actor has no place on any node, or is still starting there."""
        self.silence_s = 0.0
        """Seconds of listening since it was last heard of."""

    def look(self, now: float) -> None:
        """Note the answer, if there is one, and ask again.

        Raises:
            RayActorError: the actor is dead.
        """
        if self.last is not None:
            self.silence_s += min(now - self._looked, self._most_s)
        self._looked = now
        if self._asked is not None:
            done, _ = ray.wait([self._asked], timeout=0)
            if not done:
                return
            with suppress(ActorUnavailableError):  # out of reach, for a moment or for good
                self.last, self.silence_s = ray.get(self._asked), 0.0
        self._asked = self._actor.pulse.remote()

    def heard(self) -> None:
        """Note a sign of life other than an answer."""
        self.silence_s = 0.0
