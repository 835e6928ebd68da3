"""When a study ends: what it may spend, and when it no longer gains enough to go on."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Budget(BaseModel):
    """What a study may spend; it ends at whichever comes first.

    Trials under way when a budget is used up run to their end, so that all but `trials` may be exceeded by
    what each worker had begun.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int | None = Field(default=None, ge=1)
    """All trials, anchors included."""
    hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Wall-clock hours of coordinator time, summed over resumes."""
    gpu_hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Hours that trials keep workers busy, times the GPUs of a worker; lost attempts count too."""
    joules: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Energy that the machine's counters show over all stages of all trials, in J; never a modelled one."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if (self.trials, self.hours, self.gpu_hours, self.joules) == (None,) * 4:
            raise ValueError("give at least one of trials, hours, gpu_hours, joules")
        return self

    @property
    def is_timed(self) -> bool:
        """Whether a trial that takes longer uses more of it."""
        return (self.hours, self.gpu_hours, self.joules) != (None,) * 3

    def __str__(self) -> str:
        parts = (
            (self.trials, "trials"),
            (self.hours, "h"),
            (self.gpu_hours, "GPU-hours"),
            (self.joules, "J"),
        )
        return " or ".join(f"{amount:,.10g} {unit}" for amount, unit in parts if amount is not None)


class Plateau(BaseModel):
    """End a study once its front grows too slowly; what is estimated and how is in `hpo.search.plateau`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gain_per_hour: float = Field(gt=0, allow_inf_nan=False)
    """Share of the comparison box. The study ends once the front, at `confidence`, gains less an hour of
    worker time (a GPU-hour, where trials run on GPUs)."""
    trials: int = Field(default=20, ge=5)
    """It is judged by the last so many trials after the start design, and never before there are as many."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
