"""Code that comes with a model: what a study must say before any of it may run.

``trust_remote_code`` alone trusts whatever a repository holds on the day it is loaded, and whatever its
configuration points to. Here it is one commit of one repository (`hpo.study.ModelSource` wants the full
hash), and these checks close the ways around it: code of another repository (``auto_map: other/name--x``,
which transformers fetches at its newest revision), and a configuration that trusts on its own behalf
(CVE-2026-5241).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpo.errors import ModelError
from hpo.errors import Path as Where
from hpo.study import ModelSource

_WHERE: Where = ("model", "trust_remote_code")
_FOREIGN = "--"
"""What stands between a repository and a class in ``auto_map``."""


def check_code(directory: Path, source: ModelSource) -> None:
    """Refuse a model that would run code the study does not name.

    Raises:
        ModelError: code of another repository, or a configuration that switches trust on itself.
    """
    for path in sorted(directory.glob("*.json")):
        for key, value in _entries(_read(path)):
            if key == "trust_remote_code" and value:
                raise ModelError(
                    f"{path} sets trust_remote_code itself, which is for the study alone to say",
                    "remove the key from the file, or use another model",
                    _WHERE,
                )
            if key == "auto_map" and source.trust_remote_code:
                _check_references(path, value, source)


def _check_references(path: Path, references: Any, source: ModelSource) -> None:
    for reference in _words(references):
        repository, foreign, _ = reference.partition(_FOREIGN)
        if foreign and repository != source.source:
            raise ModelError(
                f"{path} takes code from the repository {repository!r}, which the study does not trust",
                f"the study trusts {source.source!r} at one commit; use a model that brings its own code",
                _WHERE,
            )
        if foreign:
            raise ModelError(
                f"{path} takes its code from the newest commit of {repository!r}, not from the one trusted",
                "use a commit whose auto_map names files beside it",
                _WHERE,
            )


def _read(path: Path) -> Any:
    """Return what a JSON file holds; one that is none is refused where it is used."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key with its value, at any depth."""
    rest = [value]
    while rest:
        place = rest.pop()
        if isinstance(place, dict):
            yield from place.items()
            rest.extend(place.values())
        elif isinstance(place, list):
            rest.extend(place)


def _words(value: Any) -> Iterator[str]:
    rest = [value]
    while rest:
        place = rest.pop()
        if isinstance(place, str):
            yield place
        elif isinstance(place, dict):
            rest.extend(place.values())
        elif isinstance(place, list):
            rest.extend(place)


def trusted(source: ModelSource) -> dict[str, str]:
    """Return what a study's provenance says of the code it lets run: nothing, or ``repository@commit``."""
    return {"remote_code": f"{source.source}@{source.revision}"} if source.trust_remote_code else {}
