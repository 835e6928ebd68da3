from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpo.errors import NonFinite, Unsupported
from hpo.measure.device import fingerprint
from hpo.measure.latency import LatencyProbe, decode_lengths, readings
from hpo.measure.stopwatch import Timing
from hpo.metric import METRICS, Source
from hpo.trial import Measurement
from tests.measure.subjects import broken, subject, tiny_llama


class FakeClock:
    """A clock that advances only while a model runs, by what each model is said to take."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def charge(self, model: nn.Module, *, prefill_ms: float, token_ms: float) -> nn.Module:
        """Let a forward of `model` take `token_ms` for a single token, else `prefill_ms`."""

        def advance(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            alone = kwargs["input_ids"].shape[1] == 1
            self.now += (token_ms if alone else prefill_ms) / 1e3

        model.register_forward_pre_hook(advance, with_kwargs=True)
        return model


def by_name(found: Sequence[Measurement]) -> dict[str, Measurement]:
    return {measurement.metric: measurement for measurement in found}


def test_every_metric_is_measured_with_its_unit_protocol_and_device() -> None:
    found = by_name(LatencyProbe().measure(subject(tiny_llama()), LatencyProbe.metrics))
    assert set(found) == set(LatencyProbe.metrics)
    for name, measurement in found.items():
        assert measurement.unit == METRICS[name].unit
        assert measurement.source is Source.MEASURED
        assert measurement.repeats == 5
        assert measurement.value > 0
        assert measurement.device == fingerprint("cpu", torch.get_num_threads())
        assert "batch 1" in measurement.note
        assert "eager, p20 of" in measurement.note


def test_times_and_ratios_are_those_of_the_clock() -> None:
    clock = FakeClock()
    dense = clock.charge(tiny_llama(), prefill_ms=8, token_ms=4)
    model = clock.charge(tiny_llama(inner=32), prefill_ms=6, token_ms=1)
    found = by_name(LatencyProbe(clock).measure(subject(model, dense), LatencyProbe.metrics))
    assert found["prefill_latency"].value == pytest.approx(6)
    assert found["prefill_latency_ratio"].value == pytest.approx(6 / 8)
    # The prompt's own 6 ms are in no token.
    assert found["decode_latency"].value == pytest.approx(1)
    assert found["decode_latency_ratio"].value == pytest.approx(1 / 4)
    assert all(m.spread == pytest.approx(0, abs=1e-9) for m in found.values())


def test_the_dense_model_is_measured_against_itself() -> None:
    clock = FakeClock()
    dense = clock.charge(tiny_llama(), prefill_ms=8, token_ms=4)
    found = by_name(LatencyProbe(clock).measure(subject(dense), LatencyProbe.metrics))
    assert found["prefill_latency_ratio"].value == pytest.approx(1)
    assert found["decode_latency_ratio"].value == pytest.approx(1)
    assert found["prefill_latency_ratio"].source is Source.MEASURED


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_only_the_wanted_phase_is_timed(phase: str) -> None:
    clock = FakeClock()
    model = clock.charge(tiny_llama(), prefill_ms=9, token_ms=9)
    found = LatencyProbe(clock).measure(subject(model), [f"{phase}_latency_ratio"])
    assert {m.metric for m in found} == {f"{phase}_latency", f"{phase}_latency_ratio"}


def test_the_number_of_repeats_is_the_subjects() -> None:
    clock = FakeClock()
    dense = clock.charge(tiny_llama(), prefill_ms=30, token_ms=1)
    found = LatencyProbe(clock).measure(subject(dense, repeats=9), ["prefill_latency"])
    assert [m.repeats for m in found] == [9, 9]
    assert "p20 of 3 laps x 9 repeats" in found[0].note


class Inputs:
    """Records what a model is fed."""

    def __init__(self, model: nn.Module) -> None:
        self.ids: list[Tensor] = []
        self.cached: list[bool] = []
        model.register_forward_pre_hook(self._record, with_kwargs=True)

    def _record(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self.ids.append(kwargs["input_ids"])
        self.cached.append(kwargs["use_cache"])


def test_a_prefill_reads_the_whole_context_without_a_cache() -> None:
    clock, model = FakeClock(), tiny_llama()
    inputs = Inputs(clock.charge(model, prefill_ms=600, token_ms=1))
    LatencyProbe(clock).measure(subject(model, context=24), ["prefill_latency"])
    assert {tuple(ids.shape) for ids in inputs.ids} == {(1, 24)}
    assert not any(inputs.cached)


def test_decoding_is_greedy_and_continues_the_prompt() -> None:
    clock, model = FakeClock(), tiny_llama()
    inputs = Inputs(clock.charge(model, prefill_ms=1, token_ms=200))
    LatencyProbe(clock).measure(subject(model, context=16), ["decode_latency"])
    lap = inputs.ids[1:10]  # after the check of the logits: a prompt of 8, then 8 single tokens
    assert [ids.shape[1] for ids in lap] == [8] + [1] * 8
    fed = torch.cat(lap, dim=1)
    with torch.no_grad():
        logits = model(input_ids=fed, use_cache=False).logits
    assert fed[0, 8:].tolist() == logits[0, 7:-1].argmax(-1).tolist()


@pytest.mark.parametrize(
    ("context", "start", "steps"), [(2048, 16, 32), (48, 16, 32), (40, 16, 24), (9, 4, 5), (2, 1, 1)]
)
def test_prompt_and_decoded_tokens_fit_the_context(context: int, start: int, steps: int) -> None:
    assert decode_lengths(context) == (start, steps)


def test_a_context_of_one_token_leaves_nothing_to_decode() -> None:
    with pytest.raises(Unsupported, match="no token to decode"):
        decode_lengths(1)


def test_a_model_that_gives_nan_is_not_timed() -> None:
    dense = tiny_llama()
    with pytest.raises(NonFinite, match="NaN or infinite"):
        LatencyProbe().measure(subject(broken(tiny_llama()), dense), ["prefill_latency"])


def test_a_noisy_machine_is_named_in_the_note_of_what_it_disturbed() -> None:
    # Both models slow down together in two repeats of five: the times vary, the ratio does not.
    timing = Timing((10, 10, 17, 10, 17), (20, 20, 34, 20, 34), 5)
    time, ratio = readings("prefill_latency", timing, "batch 1", "cpu: fake")
    assert time.note == "batch 1, noisy (30.0% between repeats)"
    assert ratio.note == "batch 1"
    assert time.value == 10
    assert ratio.value == 0.5


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_cuda_the_note_adds_the_device_time() -> None:
    model = tiny_llama().to("cuda:0")
    found = LatencyProbe().measure(subject(model, device="cuda:0"), LatencyProbe.metrics)
    assert len(found) == 4
    assert all("ms of device time" in m.note and m.device.startswith("cuda: ") for m in found)
