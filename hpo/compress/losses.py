"""What healing minimises. Letters: B sequences, T tokens, V vocabulary, D width, N real tokens.

Each is called with token ids (B, T) and targets (B, T - 1), `training.PADDING` where there is none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo.compress.blocks import block_names, recording
from hpo.compress.heal_knobs import HealKnobs
from hpo.compress.training import PADDING, Loss


def loss_of(model: nn.Module, dense: nn.Module, knobs: HealKnobs) -> Loss:
    """Return the loss that the knobs name, of a compressed `model` and the `dense` one that may teach it.

    Raises:
        Unsupported: it needs blocks and the model has none.
    """
    if knobs.loss == "cross_entropy":
        return CrossEntropy(model)
    if knobs.loss == "distil":
        return Distribution(model, dense, knobs.temperature)
    if knobs.loss == "hidden":
        return HiddenStates(model, dense, knobs.temperature, knobs.hidden_weight)
    return LocalSlices(model, dense, knobs.slice_blocks)


@dataclass(frozen=True)
class CrossEntropy:
    """Mean negative log-likelihood of the text, nats per token."""

    model: Any

    def __call__(self, ids_BT: Tensor, targets: Tensor) -> Tensor:
        logits_NV = real_logits(self.model, ids_BT, targets)
        return functional.cross_entropy(logits_NV, targets[targets != PADDING])


@dataclass(frozen=True)
class Distribution:
    """Mean KL(dense || model) of the next-token distributions, both at a temperature, times its square.

    The square keeps the size of the gradient. Source: Hinton et al. 2015, arXiv:1503.02531.
    """

    model: Any
    dense: Any
    temperature: float

    def __call__(self, ids_BT: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            teacher_NV = real_logits(self.dense, ids_BT, targets)
        return divergence(teacher_NV, real_logits(self.model, ids_BT, targets), self.temperature)


@dataclass(frozen=True)
class HiddenStates:
    """The divergence of `Distribution`, plus `weight` times the error of the hidden states after each block.

    The error is summed over blocks: what went wrong early is seen early, without the way through the
    rest of the model. Source: Sun et al. 2019 (patient distillation), arXiv:1908.09355.
    """

    model: Any
    dense: Any
    temperature: float
    weight: float

    @cached_property
    def _blocks(self) -> tuple[str, ...]:
        return block_names(self.dense)

    def __call__(self, ids_BT: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad(), recording(self.dense, self._blocks) as wanted:
            teacher_NV = real_logits(self.dense, ids_BT, targets)
        with recording(self.model, self._blocks) as found:
            student_NV = real_logits(self.model, ids_BT, targets)
        loss = divergence(teacher_NV, student_NV, self.temperature)
        real_BT = real_places(targets)
        for name in self._blocks:
            error = token_error(found[name].output, wanted[name].output, real_BT)
            loss = loss + self.weight * error
        return loss


@dataclass(frozen=True)
class LocalSlices:
    """Mean error of each slice of blocks, given the hidden states that the dense model's slice is given.

    No slice sees another's mistakes, and no gradient passes from one to another: each is fitted as if
    alone. Source: slice-wise feature distillation, arXiv:2605.19842.
    """

    model: Any
    dense: Any
    blocks_a_slice: int

    @cached_property
    def _blocks(self) -> tuple[str, ...]:
        return block_names(self.dense)

    def _slices(self) -> Iterator[tuple[str, ...]]:
        for start in range(0, len(self._blocks), self.blocks_a_slice):
            yield self._blocks[start : start + self.blocks_a_slice]

    def __call__(self, ids_BT: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad(), recording(self.dense, self._blocks) as calls:
            self.dense(input_ids=ids_BT, use_cache=False)
        real_BT = real_places(targets)
        errors = []
        for names in self._slices():
            hidden_BTD = calls[names[0]].given
            for name in names:
                hidden_BTD = calls[name].on(self.model.get_submodule(name), hidden_BTD)
            errors.append(token_error(hidden_BTD, calls[names[-1]].output, real_BT))
        return torch.stack(errors).mean()


def real_logits(model: Any, ids_BT: Tensor, targets: Tensor) -> Tensor:
    """Return the logits that predict a real token, in float32, shape (N, V)."""
    logits_BTV = model(input_ids=ids_BT, use_cache=False).logits[:, :-1]
    real: Tensor = logits_BTV[targets != PADDING].float()
    return real


def real_places(targets: Tensor) -> Tensor:
    """Return where the token ids (B, T) are text: the first place always is."""
    return functional.pad(targets != PADDING, (1, 0), value=True)


def divergence(teacher_NV: Tensor, student_NV: Tensor, temperature: float) -> Tensor:
    """Return the mean KL(teacher || student) at a temperature, times the temperature squared, in nats."""
    student = functional.log_softmax(student_NV / temperature, dim=-1)
    teacher = functional.log_softmax(teacher_NV / temperature, dim=-1)
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def token_error(found_BTD: Tensor, wanted_BTD: Tensor, real_BT: Tensor) -> Tensor:
    """Return the mean over real tokens of ||found - wanted||^2 / ||wanted||^2.

    Relative for each token by itself: in large models the first token's states are a thousand times
    larger than any other's and would be all that counts.
    """
    found_ND, wanted_ND = found_BTD[real_BT].float(), wanted_BTD[real_BT].float()
    squares = wanted_ND.square().sum(-1).clamp(min=torch.finfo(torch.float32).tiny)
    return ((found_ND - wanted_ND).square().sum(-1) / squares).mean()
