"""Runs in a file, one JSON object a line, so that an interrupted comparison goes on where it stopped."""

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.search.race import Run
from hpo.errors import HpoError


@dataclass(frozen=True)
class Ledger:
    """A file of finished runs, written by one process."""

    path: Path

    def runs(self) -> list[Run]:
        """Return the runs so far; a last line that an interruption cut short is dropped from the file.

        Raises:
            HpoError: a whole line is no run.
        """
        if not self.path.exists():
            return []
        text = self.path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            self.path.write_bytes(whole)
        found = []
        for i, line in enumerate(whole.decode().splitlines(), 1):
            try:
                found.append(Run.from_mapping(json.loads(line)))
            except (ValueError, TypeError, KeyError) as error:
                hint = "take the line out, or write to another file"
                raise HpoError(f"{self.path}, line {i}, is no run: {error}", hint) from error
        return found

    def append(self, run: Run) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(run.to_mapping()) + "\n")
