"""Dense models that the stage ``train`` changed, kept by content: many candidates compress the same one."""

import copy
import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hpo import registry
from hpo.compress.method import Trainer
from hpo.compress.plan import TrainPlan
from hpo.models.cache import build_once, cache_dir
from hpo.models.dense import DenseModel
from hpo.models.text import Corpus

_WEIGHTS = "model.safetensors"


def trained(dense: DenseModel, corpus: Corpus, plan: TrainPlan) -> DenseModel:
    """Return what a training makes of a model, from the cache if it was done before.

    Raises:
        Unsupported: the model does not allow what is asked.
        NonFinite: the training diverged.
    """
    digest = hashlib.sha256(f"{dense.digest}|{corpus.digest}|{plan.key}".encode()).hexdigest()
    fresh: list[nn.Module] = []

    def fill(directory: Path) -> None:
        trainer: Trainer = registry.load("method", plan.method)()
        fresh.append(trainer.train(dense, corpus, plan))
        save_file(_weights(fresh[0]), directory / _WEIGHTS)

    directory = build_once(cache_dir() / "trained" / digest[:32], fill)
    module = fresh[0] if fresh else _loaded(dense, directory / _WEIGHTS)
    return replace(dense, module=module, digest=digest)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().cpu().contiguous() for name, p in module.named_parameters()}


def _loaded(dense: DenseModel, path: Path) -> nn.Module:
    """Return a copy of a model with the weights of a file; tied weights stay tied."""
    module = copy.deepcopy(dense.module)
    weights = load_file(path)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(weights[name])
    return module.eval().requires_grad_(False)
