"""The forms in which a compressed model is written."""

from enum import StrEnum


class Form(StrEnum):
    """What the weights on disk are."""

    FACTORED = "factored"
    """Factors as they are, with the code that runs them: small, loads with ``trust_remote_code``."""
    DENSE = "dense"
    """Factors multiplied out: as large as the original, loads everywhere without code."""
