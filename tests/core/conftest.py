"""A folder with a small space, and a way to write studies into it."""

from pathlib import Path

import pytest

from tests.core.study_files import SPACE, Write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SPACE)
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Write:
    """Write a study into the folder; return its path."""

    def written(text: str) -> str:
        path = folder / "mine.yaml"
        path.write_text(text.replace("space: small", "space: small.yaml"), encoding="utf-8")
        return str(path)

    return written
