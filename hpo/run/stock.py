"""Proposals made ahead: asked for in the background, kept until a worker is free for them."""

import logging
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median

from hpo.run.asking import Asker, Proposal, pending
from hpo.run.background import Background
from hpo.run.pace import Pace
from hpo.run.turn import Turn
from hpo.skill import Skill
from hpo.trial import Trial, TrialState
from hpo.watch.logs import ASKED

_log = logging.getLogger(__name__)

_RECENT = 64
"""Trials by whose duration those under way are judged."""


@dataclass(frozen=True)
class _Question:
    """What an ask was about."""

    count: int
    final: int
    """How many trials were over when it was asked."""
    alone: bool
    """Nothing was under way: what is not found then will never be."""
    timed: bool
    """It tells how long asks take; the quasi-random start of a search, or without a result, does not."""


class Stock:
    """Hands out proposals, and sees to it that there are some when they are wanted.

    One ask runs at a time, on the trials as they were when it began; what is in stock counts as waiting
    trials in it, so no plan is proposed twice and a batch is as diverse as if it were asked for at once.
    How many are made ahead is for `Pace` to say. The stock is no part of the record: what was never
    handed out is forgotten when the process ends, and costs a little work.

    Args:
        apart: ask in a thread, and ahead. Otherwise ask when a proposal is wanted and wait for it: where
            the work itself is done by this process nothing could go on meanwhile, and a study whose
            every proposal knows all that came before it is the same at every run.
        pace: what is known of the time that asks take, if anything.
        turn: that of asks made in a thread, so that they keep out of the way of timings.
    """

    def __init__(self, asker: Asker, apart: bool, pace: Pace | None = None, turn: Turn | None = None) -> None:
        self._asker, self._apart, self._turn = asker, apart, turn or Turn()
        self._background: Background[tuple[list[Proposal], float]] = Background(apart)
        self._pace = pace or Pace()
        self._ready: list[Proposal] = []
        self._question: _Question | None = None
        self._barren: _Question | None = None
        self._rest_s = math.inf
        self._prepared = not (apart and asker.prepares)

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def skills(self) -> tuple[Skill, ...]:
        """How good the sampler's model was when it was last judged."""
        return self._asker.skills

    @property
    def busy(self) -> bool:
        """Whether an ask is running at this moment, or the sampler prepares itself."""
        return self._background.busy

    @property
    def exhausted(self) -> bool:
        """Whether the last ask found nothing though no trial was under way: the space holds no more.

        With others under way a sampler may be short of plans only for now.
        """
        return self._barren is not None and self._barren.alone

    @property
    def rest_s(self) -> float:
        """For how many seconds the stock can do without a look at it.

        Nothing while an ask runs or its answer is to be collected; half an ask where asks are made ahead of
        need, for then the next may be due before anything is heard; for ever otherwise.
        """
        return self._rest_s if self._background.idle else 0.0

    def wait(self, timeout_s: float) -> None:
        """Return when the ask under way is done, or after `timeout_s` seconds."""
        self._background.wait(timeout_s)

    def take(self, trials: Sequence[Trial], count: int) -> list[Proposal]:
        """Hand out up to `count` proposals, oldest first; one whose plan is among `trials` is dropped.

        Raises:
            Exception: whatever the sampler has raised since the last call.
        """
        self._collect()
        if count <= 0 or not self._ready:
            return []
        known = {trial.plan_hash for trial in trials}
        able = [proposal for proposal in self._ready if proposal[2] not in known]
        taken, self._ready = able[:count], able[count:]
        return taken

    def _collect(self) -> None:
        answer = self._background.collect()
        if answer is None or self._question is None:
            return
        (proposals, seconds), question = answer, self._question
        told = {"event": ASKED, "proposals": len(proposals), "seconds": seconds}
        _log.info("%d proposals in %.3g s", len(proposals), seconds, extra=told)
        if question.timed:
            self._pace.note(question.count, seconds)
        self._ready += proposals
        self._barren = None if proposals else question

    def order(self, trials: Sequence[Trial], free: int, queued: int, left: int | None) -> None:
        """Ask for what is lacking, unless an ask is under way.

        Args:
            trials: all of the study, by number.
            free: slots that have nothing to do.
            queued: trials that wait to be started again, and go first.
            left: how many more trials the study may have; None for any number.
        """
        if not self._background.idle:
            return
        running = [t for t in trials if t.state is TrialState.RUNNING]
        final = sum(t.state.is_final for t in trials)
        if self._barren is not None and running and self._barren.final == final:
            return  # nothing has changed since nothing was found
        ahead = self._ahead(trials, running) if self._apart else 0
        lacking = free + ahead - queued - len(self._ready)
        lacking = lacking if left is None else min(lacking, left - len(self._ready))
        if self._apart and (batch := self._pace.batch) is not None:
            lacking = min(lacking, batch)
        if lacking <= 0:
            self._prepare()
        else:
            stock = pending(self._ready, len(trials))
            self._ask([*trials, *stock], lacking, final, not running and not queued)

    def _prepare(self) -> None:
        """Have the sampler prepare itself while the first trials run, once."""
        if not self._prepared:
            self._prepared = True
            self._question = None

            def call() -> tuple[list[Proposal], float]:
                with self._turn.taken():
                    self._asker.prepare()
                return [], 0.0

            self._background.begin(call)

    def _ahead(self, trials: Sequence[Trial], running: Sequence[Trial]) -> int:
        over = [t for t in trials if t.started_at is not None and t.finished_at is not None]
        lasted = [(t.finished_at or 0.0) - (t.started_at or 0.0) for t in over[-_RECENT:]]
        if not lasted or not running or self._pace.cheap(median(lasted), len(running)):
            self._rest_s = math.inf
            return 0
        self._rest_s = self._pace.seconds(1) / 2
        now = time.time()
        return self._pace.ahead(lasted, [now - (t.started_at or now) for t in running])

    def _ask(self, trials: Sequence[Trial], count: int, final: int, alone: bool) -> None:
        alone = alone and not self._ready
        timed = final > 0 and not self._asker.is_start(trials)
        self._question = _Question(count, final, alone, timed)
        self._barren = None

        def call() -> tuple[list[Proposal], float]:
            began = time.monotonic()
            with self._turn.taken() if self._apart else nullcontext():
                return self._asker.ask(trials, count), time.monotonic() - began

        self._background.begin(call)
