"""Text every Python installation carries: the documentation of its own standard library.

Triple-quoted strings of the library's sources and the help topics of `pydoc`, ASCII only. Whole
files go to one split each, by the SHA-256 of their relative path, and a text that occurs twice is
kept once, so nothing in one split is a copy out of another. The bytes differ between patch releases
of Python; `digest` tells them apart.
"""

import hashlib
import re
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hpo.errors import Unsupported

TRAIN = "train"
SHARES = {TRAIN: 80, "calibration": 10, "evaluation": 5, "final": 5}
"""Percent of the files in each split."""

_TRIPLE_QUOTED = re.compile(r'"""(.*?)"""|\'\'\'(.*?)\'\'\'', re.DOTALL)
_SHORTEST = 40
"""Characters; below, a string is a label more often than a sentence."""
_SKIPPED = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data"}
)
_SMALLEST = 500_000
"""Characters in all; a library with less has been stripped of its sources or docstrings."""


@dataclass(frozen=True)
class ReferenceText:
    """The text of each split, and a digest of all of it."""

    splits: Mapping[str, str]
    digest: str


@cache
def reference_text() -> ReferenceText:
    """Read the standard library's documentation; about a second, once per process.

    Raises:
        Unsupported: the sources are not there as files (a zipped or stripped library).
    """
    passages: dict[str, list[tuple[str, str]]] = {name: [] for name in SHARES}
    seen: set[str] = set()
    for path, texts in _documents(library()):
        fresh = [text for text in dict.fromkeys(texts) if text not in seen]
        seen.update(fresh)
        if fresh:
            order, split = _place(path)
            passages[split].append((order, "\n".join(fresh)))
    # In the order of the hash, so that the beginning of a split is not one corner of the alphabet.
    splits = {name: "\n".join(text for _, text in sorted(found)) for name, found in passages.items()}
    size = sum(map(len, splits.values()))
    if size < _SMALLEST:
        raise _no_sources(f"holds {size} characters of documentation, {_SMALLEST} are needed")
    digest = hashlib.sha256("\0".join(f"{name}\0{text}" for name, text in splits.items()).encode())
    return ReferenceText(splits, digest.hexdigest())


def library() -> Path:
    """Return the directory of the standard library's sources.

    Raises:
        Unsupported: it is not a directory with sources in it.
    """
    root = Path(sysconfig.get_path("stdlib"))
    if not (root / "argparse.py").is_file():
        raise _no_sources("holds no Python sources")
    return root


def _no_sources(fault: str) -> Unsupported:
    return Unsupported(
        f"the standard library at {sysconfig.get_path('stdlib')} {fault}, so there is no reference text",
        "use a Python with its sources as files, or name a model and texts of your own in the study",
    )


def _documents(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield a relative path and its texts: every source file, then every help topic."""
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if not _SKIPPED.intersection(relative.parts):
            yield relative.as_posix(), _docstrings(path)
    from pydoc_data.topics import topics  # 0.5 MB, of use here only

    for name, text in sorted(topics.items()):
        yield f"pydoc_data/topics/{name}", [text] if text.isascii() else []


def _docstrings(path: Path) -> list[str]:
    """Return the triple-quoted strings of a source: its docstrings for by far the most part."""
    source = path.read_text(encoding="utf-8", errors="replace")  # a few old sources are Latin-1
    quoted = (double or single for double, single in _TRIPLE_QUOTED.findall(source))
    return [text for text in quoted if len(text) >= _SHORTEST and text.isascii()]


def _place(path: str) -> tuple[str, str]:
    """Return the hash that orders a file within its split, and the split."""
    digest = hashlib.sha256(path.encode()).hexdigest()
    percent = int(digest, 16) % 100
    for split, share in SHARES.items():
        if percent < share:
            return digest, split
        percent -= share
    raise AssertionError("the shares of the splits do not add up to 100")
