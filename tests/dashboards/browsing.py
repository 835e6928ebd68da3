"""Chromium, a page in it that must not complain, and the dashboard of the synthetic study."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.dashboards.serving import served

expect.set_options(timeout=20_000)  # milliseconds; nothing waits so long unless it never comes

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE: ViewportSize = {"width": 400, "height": 850}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed (apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must come through its test without an error, and without asking any other host."""
    complaints: list[str] = []
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if is_abroad(request.url) else None)
    yield page
    context.close()
    assert complaints == []


def is_abroad(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "file://", "data:", "blob:", "about:"))


@pytest.fixture(scope="module")
def address(store_url: str) -> Iterator[str]:
    with served(store_url) as address:
        yield address


def path_at(address: str, path: str) -> str:
    """Return another address of the same server, e.g. ``/study/halfway/search``, the token with it."""
    return address.replace("/?", f"{path}?")
