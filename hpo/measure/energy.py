"""Energy of a prefill: by the hardware's counter, or modelled where that is allowed and nothing else is."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from statistics import median

import torch
from torch import nn

from hpo.errors import Unsupported
from hpo.measure.counters import Counter, counter_available, open_counter
from hpo.measure.device import fingerprint, synchronize
from hpo.measure.energy_model import PJ_PER_DRAM_BYTE, PJ_PER_MAC, modelled_energy_mj_per_token
from hpo.measure.prefill import check_finite, prefill, prompt
from hpo.measure.probe import Subject
from hpo.measure.stopwatch import robust_std
from hpo.metric import Source, metric
from hpo.trial import Measurement

__all__ = ["EnergyProbe", "counter_available", "dtype_bits"]

_WINDOW_S = 2.0
"""NVML's counter moves every 20 to 100 ms, so shorter windows count whole ticks or nothing."""
_MIN_REPEATS = 3


class EnergyProbe:
    """What a prompt token costs, batch 1, eager, in a prefill over a full context.

    *Measures*: the counter's rise over windows of 2 s of back-to-back prefills, after a warm-up of
    2 s, over the tokens prefilled in the window; median and robust standard deviation over windows
    (at least 3). CUDA: NVML's total energy of that GPU alone. Processor: RAPL, its packages alone.
    Gross: idle power is in it, so a slower model pays for the time it takes. After 2312.02741 (what
    NVML's sensor sees), the reason for long windows, warm-up and repeats.

    *Where there is no counter* and the study says ``allow_modelled: true``: prefill MACs and one
    read of the weights at the published cost of each (`hpo.measure.energy_model`), marked modelled.
    A measured value is never mixed with it: the counter decides for the whole device.

    *Does not measure*: decoding; DRAM beside a processor, the host beside a GPU, fans and power
    supplies; the energy of compressing and healing. A machine that other programs use is counted
    with them.

    *Unit*: mJ per prompt token.
    """

    metrics = ("energy",)
    timed = True
    function_only = False

    def __init__(
        self,
        open_counter: Callable[[str], AbstractContextManager[Counter | None]] = open_counter,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`open_counter` finds the counter of a device; `clock` gives seconds. Both are there for tests."""
        self._open_counter = open_counter
        self._clock = clock

    def measure(self, subject: Subject, wanted: Sequence[str]) -> list[Measurement]:
        """Return `energy`, measured where a counter exists.

        Raises:
            NonFinite: a logit is NaN or infinite.
            Unsupported: there is no counter and no modelled value is allowed (or none is published
                for this precision), or the counter stands still.
        """
        with self._open_counter(subject.device) as counter:
            if counter is not None:
                return [_measured(subject, counter, self._clock)]
        if not subject.allow_modelled:
            missing = _MISSING[subject.device.partition(":")[0]]
            raise Unsupported(
                f"energy cannot be measured on {subject.device}: {missing}",
                "set `allow_modelled: true` on the energy objective to take a modelled value, marked as such",
            )
        return [_modelled(subject)]


_MISSING = {
    "cpu": "no package under /sys/class/powercap/intel-rapl:* can be read (it needs a right to energy_uj)",
    "cuda": "NVML has no total energy for it (needs a whole GPU, Volta or newer, and NVIDIA's driver)",
}


def _measured(subject: Subject, counter: Counter, clock: Callable[[], float]) -> Measurement:
    with torch.no_grad():
        ids = prompt(subject.dense, subject.context, subject.device)
        check_finite(prefill(subject.model, ids), "a prefill")

        def work() -> None:
            # One at a time, as a single user would have it: no queue builds up beyond the window.
            prefill(subject.model, ids)
            synchronize(subject.device)

        window(work, counter, clock)
        repeats = max(_MIN_REPEATS, subject.repeats)
        per_token = [window(work, counter, clock) / subject.context for _ in range(repeats)]
    protocol = f"{counter.name}, {repeats} windows of {_WINDOW_S:g} s"
    return Measurement(
        metric="energy",
        value=median(per_token),
        unit=metric("energy").unit,
        source=Source.MEASURED,
        spread=robust_std(per_token),
        repeats=repeats,
        device=fingerprint(subject.device, torch.get_num_threads()),
        note=f"batch 1, {subject.context} tokens, eager, {protocol}",
    )


def window(work: Callable[[], None], counter: Counter, clock: Callable[[], float]) -> float:
    """Repeat `work` for 2 s or once, whichever is longer; return the mJ of one.

    Raises:
        Unsupported: the counter did not move.
    """
    runs, before, start = 0, counter.read(), clock()
    while clock() - start < _WINDOW_S:
        work()
        runs += 1
    spent_mj = counter.spent_mj(before, counter.read())
    if spent_mj <= 0:
        raise Unsupported(
            f"the energy counter {counter.name} stood still for {_WINDOW_S:g} s of work",
            "measure on a device whose counter moves, or drop energy from the objectives",
        )
    return spent_mj / runs


def _modelled(subject: Subject) -> Measurement:
    bits = dtype_bits(subject.model)
    cost = subject.cost
    return Measurement(
        metric="energy",
        value=modelled_energy_mj_per_token(cost.prefill_macs, cost.weight_bytes, subject.context, bits),
        unit=metric("energy").unit,
        source=Source.MODELLED,
        note=(
            f"modelled, batch 1, {subject.context} tokens: {PJ_PER_MAC[bits]:g} pJ per {bits}-bit MAC, "
            f"{PJ_PER_DRAM_BYTE:g} pJ per byte of weights read once (Horowitz, ISSCC 2014, 45 nm)"
        ),
    )


def dtype_bits(model: nn.Module) -> int:
    """Return the bits of the floating-point type that most of a model's parameters have."""
    sizes: dict[int, int] = {}
    for parameter in model.parameters():
        if parameter.is_floating_point():
            bits = parameter.element_size() * 8
            sizes[bits] = sizes.get(bits, 0) + parameter.numel()
    return max(sizes, key=lambda bits: sizes[bits])
