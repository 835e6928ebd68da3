"""Take secrets out of text that people will read: logs, messages, whatever a driver or a hub has said.

Two ways together: the values that are known (passwords of store addresses, tokens of the environment and
of the files where tools keep them) are replaced wherever they stand, and what looks like a secret by its
name (``password=``, ``token=``, ``Bearer``, ``scheme://user:...@``) is replaced whatever its value is.
It is a net below the rule that a secret is never put into a message in the first place.
"""

import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hpo.errors import HpoError
from hpo.store.url import ENVIRONMENT, FILE_ENVIRONMENT, parse, secrets

MASK = "***"

_SHORTEST = 6
"""Characters of a value that is looked for by itself; shorter ones would tear words apart."""

_NAMES = re.compile(r"(TOKEN|PASSWORD|PASSWD|SECRET|SECRET_KEY|ACCESS_KEY|API_KEY)$")
"""How the names of variables end that hold a secret: HF_TOKEN, RAY_AUTH_TOKEN, PGPASSWORD, ..."""

_FILES = {"RAY_AUTH_TOKEN_PATH": "~/.ray/auth_token", "HF_TOKEN_PATH": "~/.cache/huggingface/token"}
"""Variable that names the file of a tool's token -> where it is by default."""

_LONGEST_FILE = 4096

_PATTERNS = (
    re.compile(r"(?P<kept>[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/]+(?P<end>@)", re.IGNORECASE),
    re.compile(
        r"(?P<kept>\b[\w-]*(?:password|passwd|pwd|token|secret|api[_-]?key)[\"']?\s*=\s*[\"']?)"
        r"[^\s\"'&,;)]+(?P<end>)",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?P<kept>[\"'][\w-]*(?:password|passwd|token|secret|api[_-]?key)[\"']\s*:\s*[\"'])"
        r"[^\"']+(?P<end>)",
        re.IGNORECASE,
    ),
    re.compile(r"(?P<kept>\b(?:password|authorization):\s*)(?!bearer)\S+(?P<end>)", re.IGNORECASE),
    re.compile(r"(?P<kept>\bbearer\s+)[\w.~+/=-]{6,}(?P<end>)", re.IGNORECASE),
    re.compile(r"(?P<kept>)\bhf_[A-Za-z0-9]{16,}\b(?P<end>)"),
)


def known_secrets(addresses: Iterable[str] = (), environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the secrets this process could come across, longest first.

    Args:
        addresses: of stores; those in the environment are looked at without being named.
        environ: the environment, by default this process's own.
    """
    here = os.environ if environ is None else environ
    found = {value for name, value in here.items() if _NAMES.search(name.upper())}
    for variable, usual in _FILES.items():
        found.add(_first_line(Path(here.get(variable) or usual).expanduser()))
    held = here.get(FILE_ENVIRONMENT)
    for address in (*addresses, here.get(ENVIRONMENT, ""), f"file:{held}" if held else ""):
        found.update(_of_address(address))
    whole = {value.strip() for value in found if len(value.strip()) >= _SHORTEST}
    return tuple(sorted(whole | {quote(value, safe="") for value in whole}, key=len, reverse=True))


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_LONGEST_FILE).strip().split("\n")[0]
    except OSError:
        return ""


def _of_address(address: str) -> tuple[str, ...]:
    if "://" not in address and not address.startswith("file:"):
        return ()
    try:
        return secrets(parse(address))
    except HpoError:  # what is wrong with it is said elsewhere
        return ()


class Redactor:
    """Replaces secrets in text. Made once, for its values are read from the environment and from files."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        wanted = sorted({value for value in values if value}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, wanted))) if wanted else None

    def __repr__(self) -> str:
        return "Redactor()"

    def text(self, text: str) -> str:
        """Return `text` without any secret that is known or looks like one."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        for pattern in _PATTERNS:
            text = pattern.sub(rf"\g<kept>{MASK}\g<end>", text)
        return text

    def value(self, value: Any) -> Any:
        """Return a value as JSON has them, every text in it redacted; keys stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.value(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        return value


class RedactingFilter(logging.Filter):
    """Redacts the records of a handler: message, arguments and the text of an exception."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self.redactor = redactor
        self._plain = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, its message cleared of secrets."""
        record.msg, record.args = self.redactor.text(record.getMessage()), None
        if record.exc_info:
            record.exc_text = self.redactor.text(self._plain.formatException(record.exc_info))
        return True
