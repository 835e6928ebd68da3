"""Healing that starts where another ended: the healed factors of a finished trial, fitted to other ranks.

Factors are kept by content, ``<cache>/healed/<model and text>/<plan>``. Letters: O output features, I input
features, R the rank wanted, P the rank of the healed parent.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hpo.compress.layers import Compressed, LowRankLinear, MpoLinear
from hpo.compress.mpo_math import full_cores, sliced
from hpo.compress.svd_math import balanced
from hpo.compress.training import split
from hpo.compress.treatment import loss_or_infinity
from hpo.models.cache import build_once, cache_dir, fetched
from hpo.models.text import Corpus

_FILE = "factors.safetensors"


def healed_directory(key: str, plan_hash: str) -> Path:
    """Return where the healed factors of a plan are kept; `key` is that of the factor cache."""
    return cache_dir() / "healed" / key / plan_hash


def has_healed(key: str, plan_hash: str) -> bool:
    """Whether the healed factors of a plan are at hand, whole."""
    return fetched(healed_directory(key, plan_hash))


def keep_healed(model: nn.Module, key: str, plan_hash: str) -> None:
    """Keep the factors of a healed model. The first to heal a plan is kept; the plan heals alike anyway."""

    def fill(directory: Path) -> None:
        # Cloned, since layers may share a factor and a file holds each tensor by itself.
        kept = {name: tensor.detach().clone().cpu() for name, tensor in _named_factors(model).items()}
        save_file(kept, directory / _FILE)

    build_once(healed_directory(key, plan_hash), fill)


def start_from(model: nn.Module, key: str, plan_hash: str, text: Corpus) -> bool:
    """Put the healed factors of another plan into a freshly compressed model, before it is balanced.

    Ranks and bonds may differ: see `fitted`. Layers of which the other plan has nothing that fits keep
    their own factors, and all of them do if the others' predict the calibration text that is held out from
    healing worse. Returns whether any layer took one.
    """
    if not has_healed(key, plan_hash):
        return False
    _, judge = split(text)
    fresh = {name: factor.detach().clone() for name, factor in _named_factors(model).items()}
    before = loss_or_infinity(model, judge)
    healed = load_file(healed_directory(key, plan_hash) / _FILE)
    taken = [_take(name, module, healed) for name, module in model.named_modules()]
    if any(taken) and loss_or_infinity(model, judge) < before:
        return True
    with torch.no_grad():
        for name, factor in _named_factors(model).items():
            factor.copy_(fresh[name])
    return False


@torch.no_grad()
def _take(name: str, module: nn.Module, healed: Mapping[str, Tensor]) -> bool:
    if not isinstance(module, Compressed):
        return False
    fresh = module.factors()
    theirs = [healed[key] for k in range(len(fresh)) if (key := _key(name, k)) in healed]
    if not fresh or len(theirs) != len(fresh):
        return False
    theirs = [tensor.to(factor.device) for tensor, factor in zip(theirs, fresh, strict=True)]
    if isinstance(module, LowRankLinear):
        values = list(fitted(theirs[0], theirs[1], module.left, module.right))
    elif isinstance(module, MpoLinear):
        values = fitted_cores(theirs, list(module.cores))
    elif all(a.shape == b.shape for a, b in zip(theirs, fresh, strict=True)):
        values = theirs
    else:
        return False
    for factor, value in zip(fresh, values, strict=True):
        factor.copy_(value)
    return True


def fitted(healed_OP: Tensor, healed_PI: Tensor, left_OR: Tensor, right_RI: Tensor) -> tuple[Tensor, Tensor]:
    """Return factors of rank R for a layer, from a parent's healed ones of rank P and its own fresh ones.

    For R <= P the best of rank R of the parent's product. For R > P the parent's product and, beside it, the
    fresh directions from P on, which the parent never had: fresh factors are nested in their rank.
    """
    wanted, parent = left_OR.shape[1], healed_OP.shape[1]
    if wanted <= parent:
        left, right = balanced(healed_OP, healed_PI)  # columns by falling singular value
        return left[:, :wanted], right[:wanted]
    return torch.cat([healed_OP, left_OR[:, parent:]], 1), torch.cat([healed_PI, right_RI[parent:]], 0)


def fitted_cores(healed: list[Tensor], fresh: list[Tensor]) -> list[Tensor]:
    """Return cores with the bonds of the fresh ones, from a parent's healed cores of other bonds.

    The tensor train of the parent's matrix and of what the fresh cores hold beyond the parent's bonds,
    truncated by TT-SVD. The fresh cores are returned where the sites differ.
    """
    if [core.shape[1:3] for core in healed] != [core.shape[1:3] for core in fresh]:
        return fresh
    bonds = [core.shape[3] for core in fresh[:-1]]
    parents = [min(core.shape[3], bond) for core, bond in zip(healed[:-1], bonds, strict=True)]
    beyond = _matrix(fresh) - _matrix(sliced(fresh, parents))
    outs, ins = [core.shape[1] for core in fresh], [core.shape[2] for core in fresh]
    cores, _ = full_cores(_matrix(healed) + beyond, outs, ins, max(bonds))
    return [core.to(fresh[0].dtype) for core in sliced(cores, bonds)]


def _matrix(cores: list[Tensor]) -> Tensor:
    return MpoLinear([core.double() for core in cores], None, "rebuild").dense_weight().detach()


def _named_factors(model: nn.Module) -> dict[str, Tensor]:
    return {
        _key(name, k): factor
        for name, module in model.named_modules()
        if isinstance(module, Compressed)
        for k, factor in enumerate(module.factors())
    }


def _key(layer: str, index: int) -> str:
    return f"{layer}#{index}"
