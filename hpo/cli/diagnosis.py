"""`hpo doctor`: what this machine has, and what is missing."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from rich.table import Table

from hpo.cli.tables import rendered
from hpo.errors import HpoError
from hpo.measure.counters import counter_available
from hpo.measure.device import environment, resolve
from hpo.models.cache import cache_dir
from hpo.store.store import Store


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    ok: bool
    detail: str

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self)


def diagnose(storage: str | None) -> list[Finding]:
    """Look at everything a study needs; nothing is written but a probe file in the cache."""
    return [*_versions(), *_energy(), _cache(), _store(storage), *_packages()]


def _versions() -> Iterator[Finding]:
    for name, value in environment().items():
        yield Finding(name, True, value)


def _energy() -> Iterator[Finding]:
    device = resolve("auto")
    counter = counter_available(device)
    detail = counter or "no counter: energy objectives need allow_modelled: true; joules are no budget"
    yield Finding("energy counter", True, detail)


def _cache() -> Finding:
    directory = cache_dir()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        return Finding(
            "cache", False, f"{directory}: {error.strerror}; set HPO_CACHE to a writable directory"
        )
    free = shutil.disk_usage(directory).free / 2**30
    return Finding("cache", free > 1, f"{directory}, {free:.1f} GiB free")


def _store(storage: str | None) -> Finding:
    try:
        with Store.open(storage, read_only=True) as store:
            return Finding(
                "store", True, f"{store.url}, schema {store.schema}, {len(store.studies())} studies"
            )
    except HpoError as error:
        missing = error.exit_code == 2
        return Finding("store", missing, str(error).replace("\n", ";"))


def _packages() -> Iterator[Finding]:
    for package, needed in (
        ("ray", "workers in other processes; without it set run.runner: in_process"),
        ("psycopg", "a store on PostgreSQL: pip install 'compression-hpo[postgres]'"),
        ("datasets", "text from hub datasets: pip install 'compression-hpo[data]'"),
    ):
        found = find_spec(package) is not None
        yield Finding(package, True, "installed" if found else f"not installed; for {needed}")
    offline = os.environ.get("HF_HUB_OFFLINE", "")
    yield Finding(
        "hub", True, "offline (HF_HUB_OFFLINE)" if offline else "reached when a study names a hub model"
    )


def diagnosis_table(findings: list[Finding]) -> str:
    """Return findings for people."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        table.add_row("ok" if finding.ok else "FAULT", finding.subject, finding.detail)
    return rendered(table)
