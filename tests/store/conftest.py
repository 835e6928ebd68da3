"""The stores that every test of the contract runs on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.store.store import Store

_POSTGRES = pytest.param("postgresql", marks=pytest.mark.postgres)


@pytest.fixture(params=["file", "memory", _POSTGRES])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store: a SQLite file, SQLite in memory, PostgreSQL."""
    url = "sqlite://" if request.param == "memory" else _shared(request, tmp_path)
    with Store.open(url) as opened:
        yield opened


@pytest.fixture(params=["file", _POSTGRES])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a store that does not exist yet and that several may open at once."""
    return _shared(request, tmp_path)


def _shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        found: str = request.getfixturevalue("postgres_url")
        return found
    return f"sqlite:///{tmp_path}/store.db"
