"""By which cause an error is told."""

import torch

from hpo.compress.keeper import Preempted
from hpo.errors import HpoError, NonFinite, Unsupported
from hpo.run.job import Failure
from hpo.trial import Cause
from hpo.watch.redaction import Redactor, known_secrets


def failure_of(error: Exception) -> Failure:
    """Return the failure of a stage that raised an error. Its words are stored and shown to everyone who may
    see the study: no secret of this process is in them, whatever a driver or a hub has said."""
    said = f"{type(error).__name__}: {error}" if not isinstance(error, HpoError) else str(error)
    return Failure(_cause(error, said), Redactor(known_secrets()).text(said))


def _cause(error: Exception, message: str) -> Cause:
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in message:
        return Cause.OUT_OF_MEMORY
    if isinstance(error, NonFinite):
        return Cause.NOT_A_NUMBER
    if isinstance(error, Unsupported):
        return Cause.UNSUPPORTED
    return Cause.PREEMPTED if isinstance(error, Preempted) else Cause.ERROR
