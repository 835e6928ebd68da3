"""Prove that an exported directory is the model that was rebuilt: reload it elsewhere and compare."""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import hpo
from hpo.deliver.biases import added_biases
from hpo.deliver.form import Form
from hpo.deliver.rebuild import Rebuilt
from hpo.format import number_text

_SCRIPT = Path(__file__).with_name("check.py")
_TIMEOUT_S = 3600
_WINDOWS = 4
_WINDOW_TOKENS = 64
"""Windows to compare logits on, and their length: enough to see a wrong weight, little to store."""
_SAMPLE = "The quick brown fox, naïvely: 1 + 1 == 2\n"
"""Text that the reloaded tokenizer must encode as the original does."""

_LOGITS = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Precision of the weights -> relative error of logits that rounding explains."""
_PERPLEXITY = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 1e-2}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    passed: bool
    found: str
    expected: str


@dataclass(frozen=True)
class Verification:
    """What reloading an exported directory in a fresh process showed."""

    checks: tuple[Check, ...]
    perplexity: float | None
    """Of the reloaded model on the study's evaluation text; None if it did not load."""

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def to_mapping(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "perplexity": self.perplexity,
            "checks": [asdict(check) for check in self.checks],
        }


def verify(rebuilt: Rebuilt, directory: Path, form: Form) -> Verification:
    """Reload `directory` in a fresh process with transformers alone and compare it with the rebuilt model.

    Whatever goes wrong in that process is a check that failed, never an exception.
    """
    size = _size(rebuilt, directory, form)
    with tempfile.TemporaryDirectory(prefix="hpo-verify-") as folder:
        place = Path(folder)
        _write_request(rebuilt, directory, form, place)
        failure = _run(place, rebuilt)
        if failure:
            return Verification((size, Check("loads", False, failure, "loads without an error")), None)
        result = json.loads((place / "result.json").read_text(encoding="utf-8"))
    perplexity = math.exp(result["nll"]) if result["nll"] < 700 else None
    return Verification((size, *_judged(rebuilt, result)), perplexity)


def expected_bytes(rebuilt: Rebuilt, form: Form) -> int:
    """Return the bytes of all stored tensors, as the plan has them.

    What an MPO layer with ``cached`` contraction keeps in memory beside its cores is not stored.
    """
    plan, base = rebuilt.plan, rebuilt.dense.module
    architecture = plan.architecture
    if form is Form.FACTORED:
        costs = [layer.costs for layer in plan.layers]
        cached = sum(max(cost.resident - cost.parameters, 0) for cost in costs)
        weights = plan.weight_bytes - cached * architecture.weight_bits // 8
    else:
        added = sum(added_biases(rebuilt.model, base).values())
        weights = architecture.other_bytes
        weights += (architecture.linear_parameters + added) * architecture.weight_bits // 8
    saved = base.state_dict()
    buffers: int = sum(
        buffer.numel() * buffer.element_size() for name, buffer in base.named_buffers() if name in saved
    )
    return weights + buffers


def _size(rebuilt: Rebuilt, directory: Path, form: Form) -> Check:
    """Compare the weight files with the plan: they hold its tensors, their headers, and nothing else."""
    paths = list(directory.glob("*.safetensors"))
    found = sum(path.stat().st_size for path in paths)
    headers = sum(_header_bytes(path) for path in paths)
    wanted = expected_bytes(rebuilt, form) + headers
    return Check("weight files", found == wanted, f"{found:,} bytes", f"{wanted:,} by the plan")


def _header_bytes(path: Path) -> int:
    """Return the size of a safetensors file's header, whose length stands in the first 8 bytes."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def _write_request(rebuilt: Rebuilt, directory: Path, form: Form, place: Path) -> None:
    sequences = rebuilt.evaluation.sequences
    windows = _windows(sequences)
    with torch.no_grad():
        logits = rebuilt.model(input_ids=windows.to(rebuilt.device), use_cache=False).logits
    tensors = {
        "ids": torch.cat(sequences),
        "lengths": torch.tensor([len(sequence) for sequence in sequences]),
        "windows": windows,
        "logits": logits.float().cpu().contiguous(),
    }
    save_file(tensors, place / "tensors.safetensors")
    request = {
        "directory": str(directory.absolute()),
        "trust_remote_code": form is Form.FACTORED,
        "device": rebuilt.device,
        "threads": rebuilt.study.run.threads,
        "text": _SAMPLE,
    }
    (place / "request.json").write_text(json.dumps(request), encoding="utf-8")


def _windows(sequences: tuple[Tensor, ...]) -> Tensor:
    """Return the beginnings of the first sequences, cut to one length, shape (W, T)."""
    chosen = sequences[:_WINDOWS]
    length = min(_WINDOW_TOKENS, *(len(sequence) for sequence in chosen))
    return torch.stack([sequence[:length] for sequence in chosen])


def _run(place: Path, rebuilt: Rebuilt) -> str:
    """Run the script on a request; return why it failed, empty if it did not."""
    root = str(Path(hpo.__file__).parents[1])
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(place / "modules"),
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
    }
    # -P: the script's own directory is not a place to import from.
    command = [sys.executable, "-P", str(_SCRIPT), str(place)]
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, our own script, our own directory
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {_TIMEOUT_S} s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"ended with code {done.returncode}"


def _judged(rebuilt: Rebuilt, result: Mapping[str, Any]) -> tuple[Check, ...]:
    dtype = next(rebuilt.model.parameters()).dtype
    far, off = _LOGITS.get(dtype, 1e-4), _PERPLEXITY.get(dtype, 1e-3)
    loaded = {kind: result[kind] for kind in ("missing", "unexpected", "mismatched") if result[kind]}
    wrong = "; ".join(f"{kind}: {', '.join(keys[:3])}" for kind, keys in loaded.items())
    ids = rebuilt.dense.tokenizer(_SAMPLE)["input_ids"]
    logits, drift = result["logits_error"], math.expm1(abs(result["nll"] - rebuilt.nll))
    return (
        Check("loads", not loaded, wrong or f"as {result['class']}", "every key, and no other"),
        Check("loads alone", result["without_hpo"], "", "this package is not imported"),
        Check("tokenizer", result["ids"] == ids, f"{len(result['ids'])} ids", f"the {len(ids)} of the base"),
        Check("logits", logits <= far, number_text(logits), f"relative error to {far:g}"),
        Check(
            "perplexity",
            drift <= off,
            f"{number_text(math.exp(min(result['nll'], 700)), 6)} ({number_text(drift)} off)",
            f"{number_text(math.exp(min(rebuilt.nll, 700)), 6)} to {off:g}, relatively",
        ),
    )
