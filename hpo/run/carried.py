"""A compressed and healed model on its way from one worker to another: only what is not the dense model's.

The taker compresses by the same plan, which gives every module its shape, and puts in the tensors that came:
so the model is the maker's to the bit, and neither the dense weights nor any code travel.
"""

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from hpo.compress.applying import compressed, finished, healed
from hpo.compress.plan import Plan
from hpo.compress.profiling import Profiler
from hpo.errors import HpoError
from hpo.space import Candidate


def pack(model: nn.Module, base: nn.Module) -> bytes:
    """Return, as a safetensors file, the tensors of a model that are not in the memory of `base`."""
    held = _addresses(base)
    # Cloned, since layers may share a tensor and the format holds each by itself.
    packed: bytes = save(
        {
            name: tensor.detach().cpu().clone().contiguous()
            for name, tensor in _tensors(model).items()
            if tensor.data_ptr() not in held
        }
    )
    return packed


def unpack(base: Profiler, candidate: Candidate, plan: Plan, model: nn.Module, content: bytes) -> nn.Module:
    """Return the model that was packed, out of one freshly compressed by the same plan, which is used up.

    Modules that only a healing brings, as adapters that stay, are had by doing the healing: it is the same.

    Raises:
        HpoError: these are not the tensors of this plan's model.
    """
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise HpoError(f"what was carried is no safetensors file: {error}", "try the trial again") from error
    if plan.heal is not None:
        finished(base, candidate, plan, model)
    if _put(model, base.dense.module, tensors):
        return model
    if plan.heal is not None:
        again = compressed(base, candidate, plan)
        healed(base, candidate, plan, again)
        if _put(again, base.dense.module, tensors):
            return again
    raise HpoError(
        f"the tensors that were carried here are not those of plan {plan.hash} as it is made here",
        "both workers must have the same package version",
    )


@torch.no_grad()
def _put(model: nn.Module, base: nn.Module, tensors: dict[str, Tensor]) -> bool:
    """Put tensors into a model in place; whether they are all that it has beside `base`, and fit."""
    held, state = _addresses(base), _tensors(model)
    own = {name for name, tensor in state.items() if tensor.data_ptr() not in held}
    fit = all(name in state and _kind(state[name]) == _kind(tensor) for name, tensor in tensors.items())
    if not fit or not own <= set(tensors):
        return False
    fresh: dict[int, Tensor] = {}
    for name, tensor in tensors.items():
        if name in own:
            state[name].copy_(tensor)  # in place: layers that share it go on sharing it
        else:
            address = state[name].data_ptr()
            fresh.setdefault(address, tensor.to(state[name].device))
            _set(model, name, fresh[address])
    for module in model.modules():
        if getattr(module, "cached_weight", None) is not None:  # made of what was there before
            module.register_buffer("cached_weight", None, persistent=False)
    return True


def _set(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Give a model a tensor of its own where it had one of the dense model's."""
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    is_parameter = leaf in dict(owner.named_parameters(recurse=False))
    setattr(owner, leaf, nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}


def _addresses(model: nn.Module) -> frozenset[int]:
    return frozenset(tensor.data_ptr() for tensor in _tensors(model).values())


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype]:
    return tensor.shape, tensor.dtype
