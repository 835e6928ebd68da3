"""Text that the dense model writes itself: training text for healing that is exactly what it would say.

A model's own samples carry its distribution better than a small text of others does (LLM-QAT, Liu et al.
2023, arXiv:2305.17888). Letters: B sequences, T tokens, V vocabulary.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hpo.compress.factors import FactorStore
from hpo.errors import Unsupported
from hpo.measure.quiet import QuietNode
from hpo.models.cache import build_once
from hpo.models.text import Corpus

SEQUENCES = 256
"""Written at most; as many as there are to begin from, if that is fewer."""
PROMPT = 8
"""A sequence begins with so many tokens of one of the calibration text, and goes on to its length."""
_TOGETHER = 32
"""Sequences written side by side."""
_SEED = 0
"""Part of the cache entry, which all trials share."""
_FILE = "text.safetensors"


def own_text(dense: nn.Module, corpus: Corpus, store: FactorStore) -> Corpus:
    """Return sequences that `dense` continues from beginnings of the corpus, written once and cached.

    Text to train on, not to judge by: its `bytes` are those of the corpus.

    Raises:
        Unsupported: the model keeps no cache of keys and values to write with.
        HpoError: the cache cannot be written.
    """
    begun = corpus.sequences[:SEQUENCES]
    name = f"own-text-{len(begun)}-{PROMPT}-{_SEED}"

    def build(directory: Path) -> None:
        written = continued(dense, begun, PROMPT, _SEED)
        save_file({f"{i:04d}": sequence for i, sequence in enumerate(written)}, directory / _FILE)

    stored = load_file(build_once(store.directory(name), build) / _FILE)
    sequences = tuple(stored[key] for key in sorted(stored))
    digest = hashlib.sha256(f"{name}|{corpus.digest}".encode()).hexdigest()
    return Corpus(sequences, corpus.bytes, digest)


def continued(dense: nn.Module, begun: Sequence[Tensor], prompt: int, seed: int) -> list[Tensor]:
    """Return sequences as long as those given, all after the first `prompt` tokens drawn from `dense`.

    Ancestral sampling at temperature 1; the same seed and model draw the same tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    found: list[Tensor | None] = [None] * len(begun)
    by_length: dict[int, list[int]] = {}
    for position, sequence in enumerate(begun):
        by_length.setdefault(len(sequence), []).append(position)
    for length, positions in by_length.items():
        for start in range(0, len(positions), _TOGETHER):
            chosen = positions[start : start + _TOGETHER]
            prompts_BT = torch.stack([begun[i][:prompt] for i in chosen])
            for i, written in zip(chosen, _write(dense, prompts_BT, length, generator), strict=True):
                found[i] = written
    return [sequence for sequence in found if sequence is not None]


@torch.no_grad()
def _write(dense: Any, prompts_BT: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Return prompts and continuations, shape (B, length)."""
    device, node = next(dense.parameters()).device, QuietNode()
    columns, fresh_BT, past = [prompts_BT], prompts_BT, None
    for _ in range(length - prompts_BT.shape[1]):
        with node.working():
            output = dense(input_ids=fresh_BT.to(device), past_key_values=past, use_cache=True)
        past = getattr(output, "past_key_values", None)
        if past is None:
            raise Unsupported(
                f"{type(dense).__name__} keeps no keys and values to write text with", "use text: calibration"
            )
        probabilities_BV = output.logits[:, -1].double().softmax(-1).cpu()
        fresh_BT = torch.multinomial(probabilities_BV, 1, generator=generator)
        columns.append(fresh_BT)
    return torch.cat(columns, dim=1)
