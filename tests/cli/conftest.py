"""Run the real command in a process of its own, in an empty directory, on a briefly trained model."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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


@pytest.fixture
def hpo(tmp_path: Path, short_reference: Path) -> Hpo:
    def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def launched(hpo: Hpo, study_file: Path) -> Hpo:
    """The command, with the small study run to its end in the working directory's store."""
    hpo("launch", study_file)
    return hpo
