"""Thousands of study files through the command itself: a study, or an error of one line and its hint.

`make test` tries some hundreds; the number to try is HPO_STUDY_FILES.
"""

import io
import os
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from typer.main import get_command

from hpo.cli.main import build, finished
from hpo.study import Study
from hpo.study_file import LONGEST_FILE, read_study
from tests.core.hostile import BENT, TEXTS, study_files

FILES = int(os.environ.get("HPO_STUDY_FILES", "300"))
_LONGEST_ERROR = 4000

some = settings(
    deadline=None,
    max_examples=FILES,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study file to write over and over, in a directory with nothing else."""
    place = tmp_path_factory.mktemp("studies")
    before = Path.cwd()
    os.chdir(place)
    yield place / "any.yaml"
    os.chdir(before)


@cache
def _command() -> Any:
    return get_command(build())


def _validated(path: Path) -> tuple[int, str, str]:
    """Run `hpo validate` on a file in this process; return exit code, output and errors."""
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        code = finished(lambda: _command().main(["validate", str(path)], "hpo", standalone_mode=False))
    return code, out.getvalue(), errors.getvalue()


def _check(path: Path, content: bytes) -> int:
    path.write_bytes(content)
    code, out, errors = _validated(path)
    if code == 0:
        assert " is valid: " in out
        study = read_study(str(path))
        assert Study.from_mapping(study.to_mapping()) == study
        return code
    assert code == 2, errors
    assert errors.startswith("error: "), errors
    message, *hint = errors.rstrip("\n").split("\n")
    assert len(hint) <= 1, errors
    assert all(line.startswith("  ") for line in hint)
    assert len(errors) < _LONGEST_ERROR
    assert all(c.isprintable() for c in message + "".join(hint)), repr(errors)
    return code


@some
@given(content=study_files())
def test_every_generated_study_file_is_a_study_or_an_error_of_one_line(file: Path, content: bytes) -> None:
    _check(file, content)


@pytest.mark.parametrize("number", range(len(BENT)))
def test_every_way_of_bending_a_file_ends_soon_and_without_a_traceback(file: Path, number: int) -> None:
    for text in TEXTS[:2]:
        _check(file, BENT[number](text).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("text", TEXTS)
def test_every_shipped_study_is_valid(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    read_study(str(file))


def test_a_file_that_is_too_long_is_refused_unread(file: Path) -> None:
    file.write_text("#" * (LONGEST_FILE + 1))
    code, _, errors = _validated(file)
    assert code == 2
    assert "is longer than" in errors
