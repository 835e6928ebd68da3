"""Verification passes for what was written and fails for anything else."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hpo.deliver import verify as verifying
from hpo.deliver.check import relative_error
from hpo.deliver.form import Form
from hpo.deliver.verify import Check, Verification, verify
from tests.deliver.conftest import Sample

Samples = dict[tuple[str, int, Form], Sample]


def _copy(sample: Sample, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample.exported.directory, tmp_path / "copy"))


def _failed(verification: Verification) -> set[str]:
    return {check.name for check in verification.checks if not check.passed}


def test_one_changed_factor_fails_logits_and_perplexity(samples: Samples, tmp_path: Path) -> None:
    sample = samples["tiny", 1, Form.FACTORED]
    directory = _copy(sample, tmp_path)
    tensors = load_file(directory / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.left"] *= 3
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    found = verify(sample.rebuilt, directory, Form.FACTORED)
    assert not found.passed
    assert _failed(found) == {"logits", "perplexity"}


def test_a_missing_weight_and_another_tokenizer_fail(samples: Samples, tmp_path: Path) -> None:
    sample = samples["tiny", 1, Form.DENSE]
    directory = _copy(sample, tmp_path)
    tensors = load_file(directory / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Lowercase"}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert {"weight files", "loads", "tokenizer"} <= _failed(verify(sample.rebuilt, directory, Form.DENSE))


def test_code_that_does_not_run_is_a_failed_check_and_no_exception(samples: Samples, tmp_path: Path) -> None:
    sample = samples["tiny", 1, Form.FACTORED]
    directory = _copy(sample, tmp_path)
    (directory / "modeling_compressed.py").write_text("raise RuntimeError('not this time')\n")
    found = verify(sample.rebuilt, directory, Form.FACTORED)
    assert found.perplexity is None
    assert found.checks[-1] == Check("loads", False, "RuntimeError: not this time", "loads without an error")


def test_a_process_that_never_ends_is_a_failed_check(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "sleep.py"
    script.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(verifying, "_SCRIPT", script)
    monkeypatch.setattr(verifying, "_TIMEOUT_S", 0.2)
    sample = samples["tiny", 1, Form.FACTORED]
    found = verify(sample.rebuilt, sample.exported.directory, Form.FACTORED)
    assert found.checks[-1].found == "took longer than 0.2 s"


def test_the_logits_error_is_relative_over_all_windows() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, input_ids: torch.Tensor, use_cache: bool) -> "Model":
            self.logits = self.weight * input_ids[..., None].float()
            return self

    ids = torch.tensor([[3, 4]])
    # |2 (3, 4) - (3, 4)| / |(3, 4)| = 5 / 5
    assert relative_error(Model(), ids, ids[..., None].float()) == 1.0


def test_half_precision_is_judged_by_its_own_rounding(samples: Samples) -> None:
    rebuilt = samples["tiny", 1, Form.DENSE].rebuilt
    result = {
        "missing": [],
        "unexpected": [],
        "mismatched": [],
        "class": "X",
        "without_hpo": True,
        "ids": rebuilt.dense.tokenizer(verifying._SAMPLE)["input_ids"],
        "logits_error": 1e-3,
        "nll": rebuilt.nll,
    }
    exact = Verification(verifying._judged(rebuilt, result), None)
    assert _failed(exact) == {"logits"}
    half = torch.nn.Linear(2, 2, dtype=torch.bfloat16)
    rounded = Verification(verifying._judged(replace(rebuilt, model=half), result), None)
    assert _failed(rounded) == set()
