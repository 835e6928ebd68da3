"""The knobs that every healer has: how long, how boldly, and towards what."""

from typing import Literal

from pydantic import Field

from hpo.compress.recipe import Knobs

Schedule = Literal["constant", "linear", "cosine"]
Objective = Literal["cross_entropy", "distil", "hidden", "local"]


class HealKnobs(Knobs):
    """How to train what a healer trains."""

    steps: int = Field(default=50, ge=0, le=100_000)
    learning_rate: float = Field(default=1e-3, gt=0, lt=1)
    """Peak of the schedule. Should grow with the damage: 3e-4 at 70 % kept, 1e-3 at 50 %. MeZO wants less."""
    schedule: Schedule = "cosine"
    batch: int = Field(default=4, ge=1, le=4096)
    """Sequences a step."""
    optimiser: Literal["adamw", "mezo"] = "adamw"
    """MeZO needs two forward passes a step and no gradients: memory as for reading, but many more steps."""
    perturbation: float = Field(default=1e-3, gt=0, lt=1)
    """Of MeZO: how far along the random direction it looks."""
    loss: Objective = "cross_entropy"
    """The text itself, the dense model's distribution, that and its hidden states, or block by block."""
    temperature: float = Field(default=1.0, gt=0, le=20)
    """Of both distributions, with the losses `distil` and `hidden`."""
    hidden_weight: float = Field(default=1.0, ge=0, le=1e4)
    """With the loss `hidden`: weight of the hidden states beside the distribution."""
    slice_blocks: int = Field(default=1, ge=1, le=1000)
    """With the loss `local`: blocks of the model that are matched as one."""
    text: Literal["calibration", "generated"] = "calibration"
    """What is read: the calibration text, or what the dense model writes."""
    patience: int = Field(default=0, ge=0, le=1000)
    """Checks without gain on calibration text held out, after which training stops; 0 for never.
    With checks, the best of the states checked is kept, not the last."""
    check_every: int = Field(default=10, ge=1, le=100_000)
    """Steps between checks."""
    start: Literal["fresh", "nearest"] = "fresh"
    """With `nearest`, from the healed factors of the finished trial whose plan is nearest, where there is one
    and they serve better than fresh ones; the trial notes which."""
