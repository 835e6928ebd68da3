"""What can go wrong, said in words a user can act on.

Every error carries a message (what is wrong and where) and a hint (what is allowed, what to do next).
The command line prints both and turns the class into an exit code; nothing else looks at the class.
"""

import difflib
from collections.abc import Iterable

Path = tuple[str | int, ...]
"""Where in a document: keys and list positions from the top, e.g. ``("objectives", 0, "limit")``."""


class HpoError(Exception):
    """The command could not be done. Exit code 1."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(HpoError):
    """The user asked for something that is not allowed; nothing was written. Exit code 2."""

    exit_code = 2


class InvalidStudy(UsageError):
    """A study or search-space document is wrong at `where`, a path into the document."""

    def __init__(self, message: str, hint: str = "", where: Path = ()) -> None:
        super().__init__(message, hint)
        self.where = where


class ModelError(InvalidStudy):
    """The model to compress cannot be had: missing, unreachable, unsafe to load, or not a causal LM."""


class NotFound(UsageError):
    """A name (study, trial, space, method, file) that does not exist."""


class StoreError(HpoError):
    """The study store cannot be reached, is too new, or refuses a write."""


class LeaseLost(StoreError):
    """Another coordinator holds the study; this one must stop writing at once."""


class Unsupported(HpoError):
    """The model has something that no method here handles, e.g. a rank above a layer's cap."""


class NonFinite(HpoError):
    """A weight, a loss or a logit is NaN or infinite."""


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return a hint that names the nearest spelling, if any, and all that is allowed."""
    options = sorted(allowed)
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"{guess}allowed: {', '.join(options)}" if options else f"{guess}nothing is allowed here"
