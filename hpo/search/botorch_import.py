"""BoTorch takes seconds to import and warns on the way, so it is imported late and in here."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing_botorch() -> Iterator[None]:
    """Import BoTorch, or what imports it, inside `with` this."""
    with warnings.catch_warnings():
        # linear_operator decorates two functions with what torch 2.13 calls deprecated.
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", DeprecationWarning)
        yield
