"""An address out of a file: only its owner may read it."""

import os
from pathlib import Path

import pytest

from hpo.errors import UsageError
from hpo.store.url import parse

URL = "postgresql://ann:s3cret@db.example/hpo"


def _file(tmp_path: Path, text: str = URL + "\n", mode: int = 0o600) -> Path:
    path = tmp_path / "store-url"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPO_STORAGE", raising=False)
    monkeypatch.delenv("HPO_STORAGE_FILE", raising=False)


def test_an_address_is_read_from_a_file_named_by_option_or_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _file(tmp_path)
    assert parse(f"file:{path}").password == "s3cret"
    assert parse(f"file://{path}") == parse(URL)
    monkeypatch.setenv("HPO_STORAGE", f"file:{path}")
    assert parse() == parse(URL)
    monkeypatch.delenv("HPO_STORAGE")
    monkeypatch.setenv("HPO_STORAGE_FILE", str(path))
    assert parse() == parse(URL)
    assert parse("sqlite:///other.db").drivername == "sqlite"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o644])
def test_a_file_open_to_others_is_refused_with_what_to_do(tmp_path: Path, mode: int) -> None:
    path = _file(tmp_path, mode=mode)
    with pytest.raises(UsageError, match=f"is open to others: mode {mode:04o}") as caught:
        parse(f"file:{path}")
    assert f"chmod 600 {path}" in caught.value.hint
    assert "s3cret" not in str(caught.value)


def test_a_link_is_judged_by_the_file_it_leads_to(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(_file(tmp_path, mode=0o644))
    with pytest.raises(UsageError, match="open to others"):
        parse(f"file:{link}")


@pytest.mark.parametrize("text", ["", f"{URL}\n{URL}\n", "x" * 5000])
def test_a_file_with_anything_else_is_refused_without_being_quoted(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="nothing else") as caught:
        parse(f"file:{_file(tmp_path, text)}")
    assert "s3cret" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        parse(f"file:{tmp_path}/nothing")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UsageError, match="is no file"):
            parse(f"file:{place}")


def test_what_stands_in_the_file_is_read_as_any_address(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown kind"):
        parse(f"file:{_file(tmp_path, 'mysql://ann:s3cret@db/x')}")
