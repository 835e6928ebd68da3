"""A model in a local directory, on its way to a machine that has no such directory: by content, once."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpo.errors import ModelError
from hpo.models.cache import build_once, cache_dir, sha256

_NEEDED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""Configuration, weights, tokenizers of every kind. Never a pickle, and never code."""

_log = logging.getLogger(__name__)

Read = Callable[[str], Iterator[bytes]]
"""Gives the content of a file, by its name, piece by piece."""


@dataclass(frozen=True)
class ShippedModel:
    """What a model's directory holds where the study was launched."""

    directory: str
    """Where, on that machine."""
    files: Mapping[str, tuple[int, str]]
    """Name -> size in bytes and SHA-256 in hex."""

    @classmethod
    def of(cls, directory: Path) -> "ShippedModel":
        """Return what a directory holds; reads all of it."""
        paths = sorted({path for pattern in _NEEDED for path in directory.glob(pattern) if path.is_file()})
        files = {path.name: (path.stat().st_size, sha256(path)) for path in paths}
        return cls(str(directory), files)

    @property
    def digest(self) -> str:
        """SHA-256 of the names and contents."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()

    def place(self, read: Read) -> Path:
        """Return a directory on this machine with the same content: the same path where that has it, else an
        entry of the cache, which is filled once.

        Raises:
            ModelError: what `read` gives is not what was announced.
        """
        here = Path(self.directory)
        if here.is_dir() and all(_is(here / name, *known) for name, known in self.files.items()):
            return here

        def fill(directory: Path) -> None:
            for name, (_, digest) in self.files.items():
                _written(directory / name, read(name), digest)

        return build_once(cache_dir() / "models" / self.digest, fill)


def _is(path: Path, size: int, digest: str) -> bool:
    if not path.is_file() or path.stat().st_size != size:
        return False
    if sha256(path) == digest:
        return True
    _log.warning("%s is another file here than where the study was launched", path)
    return False


def _written(path: Path, pieces: Iterator[bytes], digest: str) -> None:
    seen = hashlib.sha256()
    with path.open("wb") as file:
        for piece in pieces:
            seen.update(piece)
            file.write(piece)
    if seen.hexdigest() != digest:
        raise ModelError(
            f"{path.name} of the model came as {seen.hexdigest()}, where {digest} was sent",
            "launch again; if it happens again, put the model where all machines see it",
            ("model", "source"),
        )
