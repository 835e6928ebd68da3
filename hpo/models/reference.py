"""The reference model: a small language model of bytes, trained here, once, on the documentation
that comes with Python. It needs no network and no download, and compression visibly hurts it.

A Llama of 434,816 parameters over the 256 byte values; no merges, since at this size a model of
merged tokens does not get past its own bigram statistics. 2 layers beat 3 and 4 at equal seconds:
what counts is the number of steps. That number is fixed, not the seconds, so that the same text and
the same machine give the same weights.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hpo.errors import UsageError
from hpo.models.cache import build_once, cache_dir
from hpo.models.muon import Muon
from hpo.models.progress import Report, steps_shown, without_bars
from hpo.models.reference_text import TRAIN, reference_text

CONTEXT = 128
"""Bytes of a training sequence, and the longest that the model is used at."""

Penalty = Callable[[nn.Module], Tensor]
"""What is added to the loss of a step, from the model alone: a scalar."""


@dataclass(frozen=True)
class Recipe:
    """Everything besides the text that decides the weights."""

    steps: int = 1150
    batch: int = 4
    """Sequences of CONTEXT bytes a step."""
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    intermediate: int = 352
    matrix_rate: float = 0.02
    """Muon, on the linear layers."""
    other_rate: float = 8e-3
    """AdamW, on the embedding (which is the output layer too) and the norms."""
    warm_up: int = 20
    """Steps of linear warm-up."""
    decay_from: float = 0.4
    """Share of the steps after which the rates fall linearly, to zero after the last."""
    seed: int = 0
    version: int = 1
    """Counts changes of the code below that change the weights, so that no cache serves old ones."""

    def rate(self, step: int) -> float:
        """Return the factor on both rates at a step, counted from 0."""
        left = (self.steps - step) / (self.steps * (1 - self.decay_from))
        return min(1.0, (step + 1) / self.warm_up, left)


def reference_recipe() -> Recipe:
    """Return the recipe in force; ``HPO_REFERENCE_STEPS`` shortens it, for tests.

    Raises:
        UsageError: the variable is not a whole number of at least 1.
    """
    given = os.environ.get("HPO_REFERENCE_STEPS")
    if given is None:
        return Recipe()
    if not given.isdecimal() or int(given) < 1:
        raise UsageError(f"HPO_REFERENCE_STEPS is {given!r}", "give a number of steps, at least 1")
    return Recipe(steps=int(given))


def reference_directory(report: Report | None = None) -> Path:
    """Return the directory of the reference model, after training it if it is not in the cache.

    It is an ordinary directory of transformers: configuration, safetensors, tokenizer. Training
    takes about a minute on one core; `report` is told of every step, by default a bar or lines on
    stderr.

    Raises:
        Unsupported: this Python has no sources to take the text from.
        HpoError: the cache cannot be written.
    """
    text, recipe = reference_text(), reference_recipe()
    key = json.dumps({"text": text.digest, "recipe": asdict(recipe)}, sort_keys=True)
    name = f"reference-{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    def build(directory: Path) -> None:
        started = time.monotonic()
        title = "training the reference model (once)"
        with steps_shown(title, recipe.steps, report) as shown, one_thread():
            model = train(text.splits[TRAIN], recipe, shown)
        with without_bars():
            model.save_pretrained(directory)
        byte_tokenizer().save_pretrained(directory)
        record = {"text": text.digest, "seconds": round(time.monotonic() - started, 1), **asdict(recipe)}
        (directory / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    return build_once(cache_dir() / "models" / name, build)


def byte_tokenizer() -> Any:
    """Return a tokenizer whose ids are the byte values of the text's UTF-8."""
    letters = bytes_as_letters()
    bpe = Tokenizer(models.BPE(vocab={letter: byte for byte, letter in enumerate(letters)}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=CONTEXT)


def bytes_as_letters() -> list[str]:
    """Return the letter that byte-level tokenizers write for each byte value (GPT-2's table)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    shifted = {byte: chr(256 + n) for n, byte in enumerate(others)}
    return [shifted.get(byte, chr(byte)) for byte in range(256)]


def train(text: str, recipe: Recipe, report: Report, penalty: Penalty | None = None) -> Any:
    """Return a model trained on `text` by `recipe`; leaves torch's global random state as it was.

    `report` is told the loss without the `penalty`.
    """
    data = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = LlamaForCausalLM(_config(recipe))
    generator = torch.Generator().manual_seed(recipe.seed)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.95), weight_decay=0.0)
    model.train()
    for step in range(recipe.steps):
        loss = _loss(model, _batch(data, recipe, generator))
        (loss if penalty is None else loss + penalty(model)).backward()
        factor = recipe.rate(step)
        muon.step(recipe.matrix_rate * factor)
        adam.param_groups[0]["lr"] = recipe.other_rate * factor
        adam.step()
        model.zero_grad()
        report(step + 1, loss.item())
    return model.eval()


@contextmanager
def one_thread() -> Iterator[None]:
    """Train on one core: 45 s. Two save 14 s on an idle machine and take 271 s on a busy one (measured)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _config(recipe: Recipe) -> Any:
    return LlamaConfig(
        vocab_size=256,
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.intermediate,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def _batch(data: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Return (batch, CONTEXT) bytes from random places of the text."""
    starts = torch.randint(len(data) - CONTEXT, (recipe.batch,), generator=generator)
    return torch.stack([data[start : start + CONTEXT] for start in starts.tolist()])


def _loss(model: Any, tokens_BT: Tensor) -> Tensor:
    logits = model(tokens_BT, use_cache=False).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1), tokens_BT[:, 1:].flatten())
