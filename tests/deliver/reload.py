"""Load exported directories as a stranger would, in a process that knows transformers alone.

Run as a script: ``python reload.py REQUEST RESULT``, where REQUEST is a JSON list of objects with
`directory`, `trusted`, and `expected`, a safetensors file with `ids` (1, T) and `logits` (1, T, V).
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging


def _matrix(module: Any) -> Any:
    """Return a module's weight; a tensor train has none, and is a matrix of its own."""
    return getattr(module, "weight", module)


def look_at(directory: str, trusted: bool, expected: str) -> dict[str, Any]:
    """Return what one directory turned out to be."""
    tensors = load_file(expected)
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trusted)
    model, report = AutoModelForCausalLM.from_pretrained(
        directory, trust_remote_code=trusted, output_loading_info=True
    )
    with tempfile.TemporaryDirectory() as again:
        model.save_pretrained(again)
        second = AutoModelForCausalLM.from_pretrained(again, trust_remote_code=trusted)
    return {
        "class": type(model).__name__,
        "keys": {kind: sorted(map(str, keys)) for kind, keys in report.items() if kind.endswith("_keys")},
        "error": _error(model, tensors),
        "second_error": _error(second, tensors),
        "tied": _matrix(model.get_output_embeddings()) is _matrix(model.get_input_embeddings()),
        "trainable": all(p.requires_grad for p in model.parameters()),
        "text": tokenizer.decode(tokenizer("def f(x): pass")["input_ids"]),
        "generated": _generated(model, tensors["ids"]),
        "refusal": _refusal(directory),
    }


@torch.no_grad()
def _error(model: Any, tensors: dict[str, torch.Tensor]) -> float:
    logits = model.eval()(input_ids=tensors["ids"], use_cache=False).logits
    return float((logits - tensors["logits"]).norm() / tensors["logits"].norm())


@torch.no_grad()
def _generated(model: Any, ids: torch.Tensor) -> bool:
    """Whether greedy generation with a key-value cache says the same as without one."""
    runs = [
        model.generate(
            ids[:, :8],
            attention_mask=torch.ones_like(ids[:, :8]),
            max_new_tokens=6,
            do_sample=False,
            use_cache=cached,
            pad_token_id=0,
            eos_token_id=None,
        )
        for cached in (True, False)
    ]
    return bool((runs[0] == runs[1]).all()) and runs[0].shape[1] == 14


def _refusal(directory: str) -> str:
    """Return what loading without trust says; empty if it works."""
    try:
        AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=False)
    except ValueError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    found = {job["directory"]: look_at(**job) for job in asked}
    assert not any(name.split(".")[0] == "hpo" for name in sys.modules)
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")
