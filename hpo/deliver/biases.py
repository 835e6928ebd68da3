"""Biases that a compressed model has and its architecture has not, in the dense form.

Some architectures have them where their configuration says so (Llama: ``attention_bias``, ``mlp_bias``): then
every layer of that kind has one, and those that need none get zeros.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from hpo.compress.layers import Compressed
from hpo.errors import Unsupported

_SWITCHES = ("attention_bias", "mlp_bias")
"""Keys of configurations that give layers biases."""


def added_biases(model: nn.Module, dense: Any) -> dict[str, int]:
    """Return the biases that the dense form of a compressed model has and `dense` has not: path of the layer
    -> length.

    Raises:
        Unsupported: a layer has a bias that no such layer of the architecture can have.
    """
    return {name: length for gained in _switched(model, dense).values() for name, length in gained.items()}


def give_biases(plain: Any, model: nn.Module, dense: Any) -> None:
    """Have the configuration and the layers of `plain`, the dense form of `model`, have them.

    Raises:
        Unsupported: as `added_biases`.
    """
    for switch, gained in _switched(model, dense).items():
        setattr(plain.config, switch, True)
        for name, length in gained.items():
            layer: Any = plain.get_submodule(name)
            if layer.bias is None:
                layer.bias = nn.Parameter(layer.weight.new_zeros(length), requires_grad=False)


def _switched(model: nn.Module, dense: Any) -> dict[str, dict[str, int]]:
    """Return the switches that are needed, and the biases that each gives."""
    wanted, found = _wanted(model, dense), {}
    for switch in _SWITCHES:
        if wanted and getattr(dense.config, switch, None) is False:
            gained = _gained(dense, switch)
            if wanted & set(gained):
                wanted -= set(gained)
                found[switch] = gained
    if wanted:
        raise Unsupported(
            f"{min(wanted)} has a bias, and a {type(dense).__name__} can have none there",
            "export the factored form, or prune without compensation (prune.compensate: false)",
        )
    return found


def _wanted(model: nn.Module, dense: nn.Module) -> set[str]:
    plain = {name for name, module in dense.named_modules() if getattr(module, "bias", 0) is None}
    return {
        name
        for name, module in model.named_modules()
        if name in plain and isinstance(module, Compressed) and isinstance(_bias(module), Tensor)
    }


def _bias(module: Any) -> Any:
    """Return the bias of a layer; an adapter's is that of the layer it stands beside."""
    return module.dense_bias() if hasattr(module, "dense_bias") else getattr(module, "bias", None)


def _gained(dense: Any, switch: str) -> dict[str, int]:
    """Return the biases that a model of the class of `dense` has with a switch on, and else not."""
    config = copy.deepcopy(dense.config)
    setattr(config, switch, True)
    with torch.device("meta"):
        switched = type(dense)(config)
    return {
        name: len(module.bias)
        for name, module in switched.named_modules()
        if isinstance(getattr(module, "bias", None), Tensor) and dense.get_submodule(name).bias is None
    }
