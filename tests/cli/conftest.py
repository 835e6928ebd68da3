"""Run the real command in a process of its own, in an empty directory, on a briefly trained model.

Most are forks (see tests.cli.fork); the study that others copy is run by the installed program itself, and
so is what test_interruptions starts.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.fork import PATIENCE_S, Forks

Hpo = Callable[..., subprocess.CompletedProcess[str]]

STUDY = """\
version: 1
name: small
question: Does the command line do its whole job?
model: {source: reference}
data:
  calibration: {reference: true, tokens: 2048}
  evaluation: {reference: true, tokens: 2048}
objectives:
  - {metric: perplexity, limit: {ratio_to_dense: 50}}
  - {metric: weight_memory}
  - {metric: energy, allow_modelled: true}
space:
  factorise: {type: choice, choices: [whitened_svd, mpo]}
  factorise.keep_ratio: {type: float, low: 0.3, high: 0.9, when: {factorise: whitened_svd}}
  factorise.bond_dimension: {type: int, low: 4, high: 48, when: {factorise: mpo}}
  heal: {type: choice, choices: [none, fine_tune]}
  heal.steps: {type: int, low: 2, high: 4, when: {heal: fine_tune}}
search: {sampler: sobol, seed: 0, initial: 4}
budget: {trials: 6}
run: {runner: in_process}
"""


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(STUDY)
    return path


def environment() -> dict[str, str]:
    unwanted = ("HPO_STORAGE", "RAY_ADDRESS")
    return {k: v for k, v in os.environ.items() if k not in unwanted} | {
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "160",
    }


def command(*arguments: str | Path) -> list[str]:
    return [str(Path(sys.executable).with_name("hpo")), *map(str, arguments)]


@pytest.fixture(scope="session")
def forks(short_reference: Path) -> Iterator[Forks]:
    opened = Forks(environment())
    yield opened
    opened.close()


@pytest.fixture
def hpo(tmp_path: Path, forks: Forks) -> Hpo:
    return runner_in(tmp_path, forks)


def runner_in(directory: Path, forks: Forks | None = None) -> Hpo:
    """Return what runs the command in a directory, forked or started, and expects the exit code ``code``."""

    def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        if forks is not None:
            done = forks.run(command(*arguments), directory, environment())
        else:
            done = subprocess.run(
                command(*arguments),
                cwd=directory,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def finished_store(tmp_path_factory: pytest.TempPathFactory, short_reference: Path) -> Path:
    """A store with the small study run to its end, once; to be copied."""
    directory = tmp_path_factory.mktemp("finished")
    (directory / "small.yaml").write_text(STUDY)
    runner_in(directory)("launch", "small.yaml")
    return directory / "hpo.db"


@pytest.fixture
def launched(hpo: Hpo, study_file: Path, finished_store: Path) -> Hpo:
    """The command, with the small study run to its end in the working directory's store."""
    shutil.copy(finished_store, study_file.with_name("hpo.db"))
    return hpo
