"""Read text: a file, a JSON file of documents, a dataset."""

import json
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpo.errors import InvalidStudy, Unsupported, did_you_mean
from hpo.errors import Path as Where
from hpo.models.source import nearby
from hpo.study import TextSource


def read_text(name: str, where: Where) -> str:
    """Return the contents of a UTF-8 file, unpacked where its name ends in ``.xz``.

    Line ends are read as Python's text mode does: every one is ``\\n``.

    Raises:
        InvalidStudy: there is no such file, it cannot be read, or it is not UTF-8.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        fault = "is a directory" if path.is_dir() else "does not exist"
        hint = "name a file in it" if path.is_dir() else nearby(path)
        raise _wrong(where, f"the file {name!r} {fault}", hint)
    try:
        data = path.read_bytes()
        text = (lzma.decompress(data) if path.suffix == ".xz" else data).decode("utf-8")
    except UnicodeDecodeError as error:
        hint = f"convert it, e.g. `iconv -f latin1 -t utf-8 {name}`"
        raise _wrong(where, f"{name!r} is not UTF-8 at byte {error.start}", hint) from error
    except (OSError, lzma.LZMAError) as error:
        raise _wrong(where, f"{name!r} cannot be read: {error}", "check the file") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_documents(name: str, column: str, where: Where) -> list[str]:
    """Return the texts of a JSON file: a list of strings, or of objects with a string in `column`.

    Raises:
        InvalidStudy: the file cannot be read, is not such a list, or is an empty one.
    """
    where = (*where, "documents")
    try:
        entries = json.loads(read_text(name, where))
    except json.JSONDecodeError as error:
        raise _wrong(where, f"{name!r} is not JSON: {error}", "a list of strings is expected") from error
    if not isinstance(entries, list) or not entries:
        fault = "is an empty list" if entries == [] else f"holds a {type(entries).__name__}, not a list"
        raise _wrong(where, f"{name!r} {fault}", f'expected: ["a text", ...] or [{{"{column}": "..."}}, ...]')
    return [_document(entry, position, name, column, where) for position, entry in enumerate(entries)]


def _document(entry: Any, position: int, name: str, column: str, where: Where) -> str:
    text = entry.get(column) if isinstance(entry, dict) else entry
    if not isinstance(text, str) or not text:
        fault = "is empty" if text == "" else f"is no text, nor an object with a text in {column!r}"
        hint = did_you_mean(column, map(str, entry)) if isinstance(entry, dict) else "remove or repair it"
        raise _wrong(where, f"document {position} of {name!r} {fault}", hint)
    return text


def read_dataset(source: TextSource, where: Where) -> Sequence[str]:
    """Return the rows of a column of a dataset, from the hub or its local cache.

    Raises:
        InvalidStudy: no split is named, or there is no such dataset, split or column.
        Unsupported: the package `datasets` is missing.
    """
    if source.split is None:
        raise _wrong(where, f"no split of {source.dataset!r} is named", "add it, e.g. split: test")
    try:
        from datasets import load_dataset  # an extra; most studies read files
    except ImportError as error:
        raise Unsupported(
            f"the dataset {source.dataset!r} needs the package `datasets`",
            "pip install 'compression-hpo[data]', or give the text as a file",
        ) from error
    try:
        rows = load_dataset(source.dataset, source.config, split=source.split)
    except (OSError, ValueError) as error:  # not found, unreachable, no such split, no such config
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        hint = "check dataset, config and split, and that the hub can be reached"
        raise _wrong(where, f"{source.dataset!r} cannot be loaded: {reason}", hint) from error
    if source.column not in rows.column_names:
        hint = did_you_mean(source.column, rows.column_names)
        raise _wrong(where, f"{source.dataset!r} has no column {source.column!r}", hint)
    return list(rows[source.column])


def _wrong(where: Where, message: str, hint: str) -> InvalidStudy:
    return InvalidStudy(f"{'.'.join(map(str, where))}: {message}", hint, where)
