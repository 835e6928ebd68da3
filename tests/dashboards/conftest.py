"""A store with the synthetic study, written once, and the dashboard in front of it."""

from collections.abc import Iterator

import pytest
from dash import Dash

from dashboards.app import create_app
from dashboards.security import Access
from dashboards.source import StudySource
from tests.dashboards.synthetic import write_study

TOKEN = "0123456789abcdef-token"


@pytest.fixture(scope="session")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a store that no test writes to."""
    return write_study(tmp_path_factory.mktemp("store") / "hpo.db")


@pytest.fixture(scope="session")
def source(store_url: str) -> Iterator[StudySource]:
    source = StudySource(store_url)
    yield source
    source.close()


@pytest.fixture(scope="session")
def app(store_url: str) -> Dash:
    return create_app(store_url, Access(TOKEN, cookie="entrance"))
