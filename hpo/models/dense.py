"""Load the model to compress: a decoder-only causal LM, from safetensors only, checked."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from hpo.errors import InvalidStudy, ModelError, NonFinite
from hpo.errors import Path as Where
from hpo.models.cache import sha256
from hpo.models.hub import fetch
from hpo.models.progress import without_bars
from hpo.models.reference import reference_directory
from hpo.models.remote_code import check_code
from hpo.models.source import Origin, check_directory, check_source
from hpo.study import ModelSource

LONGEST_WINDOW = 2048
"""Tokens of a window by default, also for models that can read more."""
_SOURCE: Where = ("model", "source")


@dataclass(frozen=True)
class DenseModel:
    """A loaded model, uncompressed: in eval mode, without gradients."""

    source: ModelSource
    module: nn.Module
    """A causal LM of transformers. Tied embeddings are tied."""
    tokenizer: Any
    digest: str
    """SHA-256 of configuration, weights and the precision they are loaded in."""
    max_context: int
    """Most tokens that the model was made to read at once."""
    directory: Path
    """Where its files lie: for a hub model, the snapshot in the hub's cache."""
    commit: str | None
    """Of a hub model."""

    @property
    def context(self) -> int:
        """Tokens of a window unless a study says otherwise."""
        return min(self.max_context, LONGEST_WINDOW)

    def window(self, wanted: int | None) -> int:
        """Return the window of a study that asks for `wanted` tokens (None: the default).

        Raises:
            InvalidStudy: the model cannot read that many.
        """
        if wanted is not None and wanted > self.max_context:
            raise InvalidStudy(
                f"data.context is {wanted}, but {self.source.source!r} reads {self.max_context} tokens",
                f"give at most {self.max_context}, or leave it out for {self.context}",
                ("data", "context"),
            )
        return wanted or self.context


def load_model(source: ModelSource, device: str = "cpu") -> DenseModel:
    """Load a model onto `device` (``cpu``, ``cuda:0``, as torch names it).

    ``reference`` is trained first where it is not in the cache (about a minute, once).

    Raises:
        ModelError: the model cannot be had, is not safe to load, or is not a decoder-only causal LM.
        NonFinite: a weight is NaN or infinite.
        Unsupported: this Python has no sources to train the reference model on.
    """
    directory, commit = _resolve(source)
    check_directory(directory)
    check_code(directory, source)
    module = _load_module(directory, source)
    tokenizer = _load_tokenizer(directory, source)
    _check_finite(module, directory)
    _check_causal(module, directory)
    _check_vocabulary(module, tokenizer, directory)
    dtype = str(next(module.parameters()).dtype)
    return DenseModel(
        source=source,
        module=module.requires_grad_(False).eval().to(device),
        tokenizer=tokenizer,
        digest=_digest(directory, dtype),
        max_context=_max_context(module.config),
        directory=directory,
        commit=commit,
    )


def _resolve(source: ModelSource) -> tuple[Path, str | None]:
    found = check_source(source)
    if found is Origin.REFERENCE:
        return reference_directory(), None
    if found is Origin.DIRECTORY:
        return Path(source.source).expanduser(), None
    return fetch(source)


def _load_module(directory: Path, source: ModelSource) -> Any:
    with _as_model_error(directory, "model"):
        config = AutoConfig.from_pretrained(directory, trust_remote_code=source.trust_remote_code)
        module, report = AutoModelForCausalLM.from_pretrained(
            directory,
            config=config,
            dtype=getattr(torch, source.dtype) if source.dtype else "auto",
            use_safetensors=True,
            trust_remote_code=source.trust_remote_code,
            output_loading_info=True,
        )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"the weights in {directory} lack {missing[0]!r} and {len(missing) - 1} more that "
            f"{type(module).__name__} needs; they would be random",
            "name a model that was saved with its output layer, as a causal LM",
            _SOURCE,
        )
    return module


def _load_tokenizer(directory: Path, source: ModelSource) -> Any:
    with _as_model_error(directory, "tokenizer"):
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=source.trust_remote_code)


@contextmanager
def _as_model_error(directory: Path, what: str) -> Iterator[None]:
    """Turn what transformers raises for an unusable directory into one error."""
    try:
        with without_bars():
            yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"the {what} in {directory} cannot be loaded: {reason}",
            "it must load with AutoModelForCausalLM and AutoTokenizer of transformers; a model with "
            "code of its own needs model.trust_remote_code, its commit in model.revision, and your trust",
            _SOURCE,
        ) from error


def _check_finite(module: nn.Module, directory: Path) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            raise NonFinite(
                f"{bad} of {tensor.numel()} values of {name!r} in {directory} are NaN or infinite",
                "the checkpoint is damaged, or does not fit the precision it is loaded in (model.dtype)",
            )


@torch.no_grad()
def _check_causal(module: Any, directory: Path) -> None:
    """Refuse a model whose output at one place depends on what comes after (BERT loads as a causal LM)."""
    first = torch.tensor([[1, 2, 3, 1]])
    second = torch.tensor([[1, 2, 3, 2]])
    module.eval()
    before, after = (module(ids, use_cache=False).logits[0, :3].float() for ids in (first, second))
    if not torch.allclose(before, after, rtol=1e-3, atol=1e-3):
        raise ModelError(
            f"{type(module).__name__} in {directory} looks at tokens ahead: it is not a causal LM",
            "only decoder-only causal language models are compressed here",
            _SOURCE,
        )


def _check_vocabulary(module: Any, tokenizer: Any, directory: Path) -> None:
    rows = module.get_input_embeddings().weight.shape[0]
    if tokenizer.vocab_size > rows:
        raise ModelError(
            f"the tokenizer in {directory} has {tokenizer.vocab_size} tokens, the model {rows} embeddings",
            "they are not of one model",
            _SOURCE,
        )


def _max_context(config: Any) -> int:
    """Return the most positions of a model; without a limit of its own (ALiBi, recurrent), 2048."""
    return int(getattr(config, "max_position_embeddings", None) or LONGEST_WINDOW)


def _digest(directory: Path, dtype: str) -> str:
    files = [directory / "config.json", *sorted(directory.glob("*.safetensors"))]
    content = [f"{path.name} {sha256(path)}" for path in files]
    return hashlib.sha256("\n".join([*content, dtype]).encode()).hexdigest()
