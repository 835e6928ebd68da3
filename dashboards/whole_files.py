"""Files that are written whole or not at all."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from hpo.errors import HpoError, UsageError


def check_places(places: Sequence[tuple[str, Path]], *, force: bool = False) -> None:
    """Refuse places that files cannot be written to, each with the option that named it, before any work.

    Raises:
        UsageError: one is a directory, is there already and `force` is not set, lies in no directory, or is
            named twice.
    """
    seen: set[Path] = set()
    for option, path in places:
        if path.is_dir():
            inside = path / f"report{'.html' if option == '--out' else '.csv'}"
            raise UsageError(f"{path} is a directory", f"name a file in it: {option} {inside}")
        if path.exists() and not force:
            raise UsageError(f"{path} is there already", f"name another file with {option}, or say --force")
        if not path.parent.is_dir():
            raise UsageError(
                f"there is no directory {path.parent}", f"make it, or name another file with {option}"
            )
        if path.resolve() in seen:
            raise UsageError(f"{path} is named twice", "give each file a name of its own")
        seen.add(path.resolve())


def write_whole(contents: Mapping[Path, bytes]) -> None:
    """Write files: all of them aside first, and only then each into its place.

    Raises:
        HpoError: one cannot be written; what stood in its place still does, and nothing half-written is left.
    """
    parts = {path: path.with_name(f".{path.name[:100]}.{os.getpid()}.part") for path in contents}
    path = next(iter(contents), Path())
    try:
        for path, content in contents.items():
            parts[path].write_bytes(content)
        for path, part in parts.items():
            part.replace(path)
    except OSError as error:
        raise HpoError(
            f"cannot write {path}: {error.strerror or error}", "name another file with --out or --data"
        ) from None
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)
