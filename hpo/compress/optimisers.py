"""The optimisers of a healing. Both can say where they stand, to go on from there in another process."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from hpo.compress.heal_knobs import HealKnobs
from hpo.compress.mezo import mezo_step
from hpo.compress.snapshot import Snapshot

_LARGEST_NORM = 1.0
"""Of the gradient over all parameters; above it is scaled down."""


class Optimiser(Protocol):
    """Moves parameters, step by step."""

    def step(self, loss: Callable[[], Tensor], rate: float) -> float:
        """Move the parameters; return the loss. Where it is not finite, nothing moves."""
        ...

    def snapshot(self) -> Snapshot:
        """Return where it stands after its last step, the parameters included."""
        ...

    def take_up(self, snapshot: Snapshot) -> None:
        """Go on from there.

        Raises:
            Misfit: it was taken of other parameters; nothing has changed.
        """
        ...


def optimiser_of(parameters: Sequence[nn.Parameter], knobs: HealKnobs, seed: int) -> Optimiser:
    """Return the optimiser that the knobs name."""
    masters = _Masters(parameters)
    return Mezo(masters, knobs.perturbation, seed) if knobs.optimiser == "mezo" else AdamW(masters)


class _Masters:
    """The parameters in float32: copies of those of half precision, which cannot hold small updates."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.weights: list[Tensor] = [
            p if p.dtype == torch.float32 else p.detach().float().clone() for p in parameters
        ]

    @torch.no_grad()
    def write(self) -> None:
        for parameter, weight in zip(self.parameters, self.weights, strict=True):
            if parameter is not weight:
                parameter.copy_(weight)

    @torch.no_grad()
    def put(self, values: Sequence[Tensor]) -> None:
        for weight, value in zip(self.weights, values, strict=True):
            weight.copy_(value)
        self.write()


class AdamW:
    """Loshchilov and Hutter 2019, arXiv:1711.05101; without decay, which would undo the factorisation."""

    def __init__(self, masters: _Masters) -> None:
        self._masters = masters
        self._adamw = torch.optim.AdamW(masters.weights, weight_decay=0.0, betas=(0.9, 0.95))

    def step(self, loss: Callable[[], Tensor], rate: float) -> float:
        masters = self._masters
        value = loss()
        if not torch.isfinite(value):
            return math.nan
        # Experts that no token was sent to have no gradient.
        gradients = torch.autograd.grad(value, masters.parameters, allow_unused=True)
        for master, gradient in zip(masters.weights, gradients, strict=True):
            master.grad = torch.zeros_like(master) if gradient is None else gradient.float()
        nn.utils.clip_grad_norm_(masters.weights, _LARGEST_NORM)
        self._adamw.param_groups[0]["lr"] = rate
        self._adamw.step()
        masters.write()
        return float(value.detach())

    def snapshot(self) -> Snapshot:
        states = [self._adamw.state[weight] for weight in self._masters.weights]
        return Snapshot.joined(
            weights=Snapshot.listed(self._masters.weights),
            first=Snapshot.listed([state["exp_avg"] for state in states]),
            second=Snapshot.listed([state["exp_avg_sq"] for state in states]),
            count=Snapshot.listed([state["step"] for state in states]),
        )

    def take_up(self, snapshot: Snapshot) -> None:
        weights, count = self._masters.weights, torch.zeros(())
        parts = {name: snapshot.part(name).like(weights) for name in ("weights", "first", "second")}
        counts = snapshot.part("count").like([count] * len(weights))
        self._masters.put(parts["weights"])
        states = {
            place: {"step": step, "exp_avg": first, "exp_avg_sq": second}
            for place, (step, first, second) in enumerate(
                zip(counts, parts["first"], parts["second"], strict=True)
            )
        }
        groups = self._adamw.state_dict()["param_groups"]
        self._adamw.load_state_dict({"state": states, "param_groups": groups})


class Mezo:
    """Two forward passes a step; see `hpo.compress.mezo`."""

    def __init__(self, masters: _Masters, perturbation: float, seed: int) -> None:
        self._masters = masters
        self._perturbation = perturbation
        self._seeds = torch.Generator().manual_seed(seed)

    def step(self, loss: Callable[[], Tensor], rate: float) -> float:
        def value() -> float:
            self._masters.write()
            return float(loss())

        seed = int(torch.randint(2**62, (), generator=self._seeds))
        mean = mezo_step(self._masters.weights, value, seed, rate, self._perturbation)
        self._masters.write()
        return mean

    def snapshot(self) -> Snapshot:
        return Snapshot.joined(
            weights=Snapshot.listed(self._masters.weights), seeds=Snapshot.listed([self._seeds.get_state()])
        )

    def take_up(self, snapshot: Snapshot) -> None:
        weights = snapshot.part("weights").like(self._masters.weights)
        (seeds,) = snapshot.part("seeds").like([self._seeds.get_state()])
        self._masters.put(weights)
        self._seeds.set_state(seeds)
