"""Reload an exported model in a process of its own, with torch and transformers alone, and look at it.

Run as a script by `hpo.deliver.verify`: ``python check.py REQUEST``, a directory that holds

    request.json          directory, trust_remote_code, device, threads, text
    tensors.safetensors   ids and lengths of the evaluation text, windows (W, T), logits (W, T, V)

and gets ``result.json``. Nothing of this package is imported before the model is loaded and its
logits are taken; that is noted too, and only then is its perplexity measured with our code.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging


def main(place: Path) -> None:
    """Do what the request in `place` asks and write the result there."""
    request = json.loads((place / "request.json").read_text(encoding="utf-8"))
    tensors = load_file(place / "tensors.safetensors")
    torch.set_num_threads(request["threads"])
    logging.disable_progress_bar()
    trusted = request["trust_remote_code"]
    tokenizer = AutoTokenizer.from_pretrained(request["directory"], trust_remote_code=trusted)
    model, report = AutoModelForCausalLM.from_pretrained(
        request["directory"], trust_remote_code=trusted, use_safetensors=True, output_loading_info=True
    )
    model = model.to(request["device"]).eval()
    result: dict[str, Any] = {
        "class": type(model).__name__,
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(report["unexpected_keys"]),
        "mismatched": sorted(str(key) for key in report["mismatched_keys"]),
        "ids": tokenizer(request["text"])["input_ids"],
        "logits_error": relative_error(model, tensors["windows"], tensors["logits"]),
    }
    result["without_hpo"] = not any(name.split(".")[0] == "hpo" for name in sys.modules)
    result["nll"] = _nll(model, tensors["ids"].split(tensors["lengths"].tolist()))
    (place / "result.json").write_text(json.dumps(result), encoding="utf-8")


@torch.no_grad()
def relative_error(model: Any, windows_WT: Tensor, expected_WTV: Tensor) -> float:
    """Return ``|logits - expected| / |expected|``, Frobenius norms over all windows; NaN if one is."""
    device = next(model.parameters()).device
    logits_WTV = model(input_ids=windows_WT.to(device), use_cache=False).logits.double().cpu()
    expected = expected_WTV.double()
    return float((logits_WTV - expected).norm() / expected.norm())


def _nll(model: Any, sequences: tuple[Tensor, ...]) -> float:
    from hpo.measure.likelihood import score

    scores = score(model, sequences)
    return float(scores.nll.sum() / scores.tokens.sum())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
