"""One store of small trials for the room, every export of it, and how they look from another process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hpo.deliver.export import Exported, export
from hpo.deliver.form import Form
from hpo.deliver.rebuild import Rebuilt, rebuild
from hpo.store.store import Store
from hpo.store.values import StudyRecord
from hpo.trial import Trial
from tests.deliver.building import (
    CACHED_MPO,
    CORRECTED,
    FURTHER,
    FURTHER_SPACE,
    KIVI,
    MPO,
    PACKED,
    SLICED,
    SLICED_SPACE,
    SVD,
    WHITENED_HEALED,
    record,
    study,
)
from tests.models.tiny import configs, save, tiny_model

STEPS = 20
KINDS = ("dense", "svd", "healed", "mpo", "cached_mpo")
"""What the trials 0 to 4 of the reference model's study are."""
FAMILIES = ("gpt2", "gpt_neox", "llama", "opt", "qwen2")


@dataclass(frozen=True)
class Home:
    """A store on disk, with two studies of the reference model and one of each family."""

    url: str
    root: Path

    def record(self, name: str) -> StudyRecord:
        with Store.open(self.url, read_only=True) as store:
            return store.study(name)

    def trial(self, name: str, number: int) -> Trial:
        with Store.open(self.url, read_only=True) as store:
            return store.trial(name, number)

    def rebuilt(self, name: str, number: int) -> Rebuilt:
        return rebuild(self.record(name), self.trial(name, number))

    def export(
        self, name: str, number: int, target: Path, form: Form, **how: Any
    ) -> tuple[Rebuilt, Exported]:
        rebuilt = self.rebuilt(name, number)
        return rebuilt, export(rebuilt, self.record(name), self.trial(name, 0), target, form, **how)


@dataclass(frozen=True)
class Sample:
    """One export, and how a fresh process found it."""

    rebuilt: Rebuilt
    exported: Exported
    found: dict[str, Any]


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Run every trial the room needs, with a short reference training and a cache of its own."""
    root = tmp_path_factory.mktemp("deliver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_CACHE", str(root / "cache"))
        patch.setenv("HPO_REFERENCE_STEPS", str(STEPS))
        url = f"sqlite:///{root / 'hpo.db'}"
        with Store.open(url) as store:
            record(store, study("tiny"), [SVD, WHITENED_HEALED, MPO, CACHED_MPO])
            record(store, study("few_bits"), [CORRECTED, PACKED])
            record(store, study("further", space=FURTHER_SPACE), FURTHER)
            record(store, study("cache"), [KIVI])
            record(store, study("sliced", space=SLICED_SPACE), SLICED)
            for family in FAMILIES:
                source = save(tiny_model(configs()[family]), root / family)
                record(store, study(family, str(source)), [SVD, MPO])
        yield Home(url, root)


@pytest.fixture(scope="package")
def samples(home: Home) -> dict[tuple[str, int, Form], Sample]:
    """Export trials in both forms and load all of them in one fresh process."""
    wanted = [("tiny", number, form) for number in range(len(KINDS)) for form in Form]
    wanted += [(family, 1, form) for family in FAMILIES for form in Form] + [("gpt2", 2, Form.FACTORED)]
    wanted += [("few_bits", number, form) for number in (1, 2) for form in Form]
    wanted += [("cache", 1, Form.FACTORED)]
    wanted += [("sliced", number, Form.FACTORED) for number in (1, 2)]
    wanted += [("further", number + 1, form) for number in range(len(FURTHER)) for form in Form]
    exports, jobs = {}, []
    for name, number, form in wanted:
        target = home.root / "exports" / f"{name}-{number}-{form}"
        exports[name, number, form] = rebuilt, exported = home.export(name, number, target, form)
        expected = home.root / f"{target.name}.safetensors"
        _save_expected(rebuilt, expected)
        trusted = exported.form is Form.FACTORED
        jobs.append({"directory": str(target), "trusted": trusted, "expected": str(expected)})
    found = _reloaded(jobs, home.root)
    return {
        key: Sample(rebuilt, exported, found[str(exported.directory)])
        for key, (rebuilt, exported) in exports.items()
    }


@torch.no_grad()
def _save_expected(rebuilt: Rebuilt, path: Path) -> None:
    ids = rebuilt.evaluation.sequences[0][None, :32].contiguous()
    logits = rebuilt.model(input_ids=ids, use_cache=False).logits
    save_file({"ids": ids, "logits": logits.contiguous()}, path)


def _reloaded(jobs: list[dict[str, Any]], root: Path) -> dict[str, dict[str, Any]]:
    (root / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    script = Path(__file__).with_name("reload.py")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(root / "modules")}
    command = [sys.executable, "-I", str(script), str(root / "jobs.json"), str(root / "found.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads((root / "found.json").read_text(encoding="utf-8"))
    return found
