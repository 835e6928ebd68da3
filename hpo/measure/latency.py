"""Latency of a prefill and of decoding, beside the dense model in the same process."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from hpo.errors import Unsupported
from hpo.measure.device import fingerprint, synchronize
from hpo.measure.prefill import check_finite, prefill, prompt
from hpo.measure.probe import Subject
from hpo.measure.stopwatch import Lap, Stopwatch, Timing, Work, block, compare, is_noisy, wall_stopwatch
from hpo.metric import Source, metric
from hpo.trial import Measurement

_DECODED = 32
_DECODE_PROMPT = 16


class LatencyProbe:
    """How long a user waits, eager, batch 1.

    *Measures*: `prefill_latency`, one forward over a full context without a cache, logits of every
    position included, as the model computes them; `decode_latency`, one token of greedy decoding
    with a key-value cache, mean over 32 tokens after a prompt of 16 (fewer of both in a short
    context), the prompt's own forward not counted; and the ratio of both to the dense model's.
    Wall time with the device synchronised; on CUDA the note adds the device time by events, which is
    shorter where launching kernels sets the pace. The protocol (interleaved blocks, 20th
    percentile, lowest repeat, median ratio) is told and justified in `hpo.measure.stopwatch`.
    The dense model is timed against itself: its ratio is about 1, and how far from 1 is the noise.

    *Does not measure*: batches, sampling, tokenisation, compiled graphs or a serving engine. Loading
    and the first, cold forward are left out.

    *Unit*: ms, ms per token, and times dense. *Noise*: where repeats vary by more than 5 % the note
    says ``noisy``; such a figure is better taken again.
    """

    metrics = ("prefill_latency", "decode_latency", "prefill_latency_ratio", "decode_latency_ratio")
    timed = True
    function_only = False

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` gives seconds; another one is for tests."""
        self._clock = clock

    def measure(self, subject: Subject, wanted: Sequence[str]) -> list[Measurement]:
        """Measure the phases (prefill, decode) that `wanted` names; each gives its time and its ratio.

        Raises:
            NonFinite: a logit is NaN or infinite.
            Unsupported: decoding was asked for in a context of 1 token.
        """
        found: list[Measurement] = []
        with torch.no_grad():
            ids = prompt(subject.dense, subject.context, subject.device)
            check_finite(prefill(subject.model, ids), "a prefill")
            if any(name.startswith("prefill") for name in wanted):
                timing, how = self._compare(subject, partial(_prefill_lap, ids))
                words = f"batch 1, {subject.context} tokens, {how}"
                found += readings("prefill_latency", timing, words, _device(subject))
            if any(name.startswith("decode") for name in wanted):
                start, steps = decode_lengths(subject.context)
                timing, how = self._compare(subject, partial(_decode_lap, ids[:, :start], steps), steps)
                words = f"batch 1, {steps} tokens after {start}, {how}"
                found += readings("decode_latency", timing, words, _device(subject))
        return found

    def _compare(
        self, subject: Subject, lap_of: Callable[[nn.Module], Lap], tokens: int = 1
    ) -> tuple[Timing, str]:
        """Time the model beside the dense one, a lap's time over `tokens`; return it with the protocol."""
        laps = lap_of(subject.model), lap_of(subject.dense)
        on_cuda = subject.device.startswith("cuda")
        watch = wall_stopwatch(partial(synchronize, subject.device), self._clock)
        timing = compare(*laps, watch, subject.repeats, warm_ups=10 if on_cuda else 3)
        how = f"eager, p20 of {timing.laps} laps x {timing.repeats} repeats{kernels_of(subject.model)}"
        if on_cuda:
            events_ms = block(laps[0], _cuda_stopwatch(subject.device), timing.laps) / tokens
            how += f", {events_ms:.4g} ms of device time"
        return timing.per(tokens), how


def kernels_of(model: nn.Module) -> str:
    """Return how matrices in few bits were multiplied, in words to go on with; empty where there are none."""
    found = sorted({str(module.kernel) for module in model.modules() if hasattr(module, "kernel")})
    return f", weights in few bits: {', '.join(found)}" if found else ""


def decode_lengths(context: int) -> tuple[int, int]:
    """Return how many tokens the prompt has and how many are decoded, together within `context`.

    Raises:
        Unsupported: the context has no room for both.
    """
    if context < 2:
        raise Unsupported(
            f"a context of {context} leaves no token to decode", "decode_latency needs 2 or more"
        )
    start = min(_DECODE_PROMPT, context // 2)
    return start, min(_DECODED, context - start)


def _prefill_lap(ids: Tensor, model: nn.Module) -> Lap:
    work = partial(prefill, model, ids)
    return lambda watch: watch(work)


def _decode_lap(ids: Tensor, steps: int, model: nn.Module) -> Lap:
    def lap(watch: Stopwatch) -> float:
        out = model(input_ids=ids, use_cache=True)  # a new cache each lap, filled untimed
        first = out.logits[:, -1:].argmax(-1)
        return watch(partial(_decode, model, first, out.past_key_values, steps))

    return lap


def _decode(model: nn.Module, token: Tensor, cache: object, steps: int) -> None:
    """Decode `steps` tokens greedily. `token`: (1, 1), the last one known; `cache` grows in place."""
    for _ in range(steps):
        out = model(input_ids=token, past_key_values=cache, use_cache=True)
        token, cache = out.logits[:, -1:].argmax(-1), out.past_key_values


def _device(subject: Subject) -> str:
    return fingerprint(subject.device, torch.get_num_threads())


def readings(name: str, timing: Timing, note: str, device: str) -> list[Measurement]:
    """Put a timing in words: the latency `name` (lowest repeat) and its ratio to dense (median)."""
    time = name, timing.value_ms, timing.spread_ms, timing.noise
    ratio = f"{name}_ratio", timing.ratio, timing.ratio_spread, timing.ratio_noise
    return [
        Measurement(
            metric=called,
            value=value,
            unit=metric(called).unit,
            source=Source.MEASURED,
            spread=spread,
            repeats=timing.repeats,
            device=device,
            note=f"{note}, noisy ({noise:.1%} between repeats)" if is_noisy(noise) else note,
        )
        for called, value, spread, noise in (time, ratio)
    ]


def _cuda_stopwatch(device: str) -> Stopwatch:
    """Return a stopwatch for the time between two events on the device's stream."""

    def timed(work: Work) -> float:
        with torch.cuda.device(device):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            work()
            end.record()
            end.synchronize()
        return float(start.elapsed_time(end))

    return timed
