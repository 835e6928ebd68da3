"""The address of a store out of a file, so that its password stands in no command and no environment."""

import os
import stat
from pathlib import Path

from hpo.errors import UsageError

_LONGEST = 4096
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
"""What the file's group and everybody else may do."""


def read_secret(path: Path) -> str:
    """Return the only line of a file that its owner alone may read.

    Raises:
        UsageError: it cannot be read, others may read or write it, or it holds not one line.
    """
    place = path.expanduser()
    if place.exists() and not place.is_file():  # opening a pipe would wait for ever
        raise UsageError(f"{path} is no file to read the address of the store from", "give a regular file")
    try:
        with place.open(encoding="utf-8") as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read(_LONGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"the file {path} with the address of the store cannot be read: {why}",
            "it must be a text file of one line, e.g. postgresql://user:password@host/database",
        ) from None
    if os.name == "posix" and mode & _OTHERS:
        raise UsageError(
            f"{path}, which holds the address of the store, is open to others: mode {stat.S_IMODE(mode):04o}",
            f"make it yours alone: chmod 600 {path} (a Kubernetes secret: defaultMode: 0400, or give it as "
            "HPO_STORAGE by secretKeyRef)",
        )
    lines = text.split()
    if len(text) > _LONGEST or len(lines) != 1:
        raise UsageError(
            f"the file {path} must hold the address of the store and nothing else",
            "one line, e.g. postgresql://user:password@host/database",
        )
    return lines[0]
