"""How much disk may be taken by what healings leave for later, and what makes room when it is too much."""

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hpo.errors import UsageError

MOST_GIB = "HPO_HEALINGS_GIB"
"""Environment variable: how much disk healings may take, and their checkpoints once more, in GiB; 20 without
it, and 0 keeps none."""

Entry = tuple[float, int, Path]
"""When it was used last (seconds since the epoch), its bytes, and the file or directory."""


def most_bytes() -> int:
    """Return how much may be kept.

    Raises:
        UsageError: the variable holds no number.
    """
    given = os.environ.get(MOST_GIB, "20")
    try:
        most = float(given)
    except ValueError:
        raise UsageError(f"{MOST_GIB} is {given!r}, which is no number", "give GiB, such as 20") from None
    return max(int(most * 2**30), 0)


def trim(entries: Iterable[Entry], most: int) -> None:
    """Remove entries until the rest takes at most so many bytes, those used longest ago first.

    Other processes add and remove entries meanwhile: what is gone by the time it is looked at takes no room.
    """
    total = 0
    for _, size, path in sorted(entries, reverse=True):
        total += size
        if total > most:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()
