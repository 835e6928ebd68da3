import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from hpo.errors import NonFinite, Unsupported
from hpo.measure.counters import Counter
from hpo.measure.device import fingerprint
from hpo.measure.energy import EnergyProbe, counter_available, dtype_bits
from hpo.measure.energy_model import modelled_energy_mj_per_token
from hpo.measure.probe import Cost
from hpo.metric import Source
from hpo.trial import Measurement
from tests.measure.subjects import CONTEXT, broken, subject, tiny_llama, true_cost


class FakeMeter:
    """A clock and an energy counter that advance only while a model runs."""

    name = "fake"

    def __init__(self) -> None:
        self.now = 0.0
        self.microjoules = 0
        self.forwards = 0

    def clock(self) -> float:
        return self.now

    def read(self) -> tuple[int, ...]:
        return (self.microjoules,)

    def spent_mj(self, before: Sequence[int], after: Sequence[int]) -> float:
        return (after[0] - before[0]) / 1000

    @contextmanager
    def opened(self, device: str) -> Iterator[Counter]:
        yield self

    def charge(self, model: nn.Module, seconds: float, cost_mj: Callable[[int], float]) -> nn.Module:
        """Let the n-th forward of `model` take `seconds` and ``cost_mj(n)``, n from 0."""

        def advance(module: nn.Module, args: Any) -> None:
            self.now += seconds
            self.microjoules += round(1000 * cost_mj(self.forwards))
            self.forwards += 1

        model.register_forward_pre_hook(advance)
        return model

    def probe(self) -> EnergyProbe:
        return EnergyProbe(self.opened, self.clock)


@contextmanager
def no_counter(device: str) -> Iterator[None]:
    yield None


def only(found: list[Measurement]) -> Measurement:
    (measurement,) = found
    assert measurement.metric == "energy"
    assert measurement.unit == "mJ per token"
    return measurement


def test_the_modelled_energy_by_hand() -> None:
    # 1e9 MACs of 4.6 pJ and 1e6 bytes of 160 pJ are 4.76e9 pJ = 4.76 mJ; over 100 tokens.
    assert modelled_energy_mj_per_token(10**9, 10**6, 100, 32) == pytest.approx(0.0476)
    # 1.5 pJ a MAC: 1.5e9 + 0.16e9 pJ.
    assert modelled_energy_mj_per_token(10**9, 10**6, 100, 16) == pytest.approx(0.0166)


@pytest.mark.parametrize("bits", [8, 64])
def test_a_precision_without_a_published_figure_is_refused(bits: int) -> None:
    with pytest.raises(Unsupported, match=f"{bits}-bit") as caught:
        modelled_energy_mj_per_token(1, 1, 1, bits)
    assert "16 and 32 bits" in caught.value.hint


def test_the_energy_model_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, hpo.measure.energy_model; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_energy_is_the_counters_rise_a_token() -> None:
    meter = FakeMeter()
    model = meter.charge(tiny_llama(), seconds=0.5, cost_mj=lambda n: 48)
    found = only(meter.probe().measure(subject(model), ["energy"]))
    assert found.value == pytest.approx(48 / CONTEXT)
    assert found.spread == pytest.approx(0)
    assert found.source is Source.MEASURED
    assert found.repeats == 5
    assert found.device == fingerprint("cpu", torch.get_num_threads())
    assert found.note == f"batch 1, {CONTEXT} tokens, eager, fake, 5 windows of 2 s"


def test_value_and_spread_are_medians_over_windows_after_the_warm_up() -> None:
    meter = FakeMeter()
    # One forward is a whole window: the check, the warm-up (dear), then 10, 20, 90 mJ.
    costs = [7.0, 1000.0, 10.0, 20.0, 90.0]
    model = meter.charge(tiny_llama(), seconds=2.0, cost_mj=lambda n: costs[n])
    found = only(meter.probe().measure(subject(model, repeats=3), ["energy"]))
    assert found.value == pytest.approx(20 / CONTEXT)
    assert found.spread == pytest.approx(1.4826 * 10 / CONTEXT)


def test_there_are_never_fewer_than_three_windows() -> None:
    meter = FakeMeter()
    model = meter.charge(tiny_llama(), seconds=2.0, cost_mj=lambda n: 1)
    assert only(meter.probe().measure(subject(model, repeats=1), ["energy"])).repeats == 3


def test_a_forward_longer_than_a_window_is_run_once_in_it() -> None:
    meter = FakeMeter()
    model = meter.charge(tiny_llama(), seconds=60.0, cost_mj=lambda n: 32)
    assert only(meter.probe().measure(subject(model), ["energy"])).value == pytest.approx(32 / CONTEXT)
    assert meter.forwards == 1 + 1 + 5


def test_a_counter_that_stands_still_is_refused() -> None:
    meter = FakeMeter()
    model = meter.charge(tiny_llama(), seconds=0.5, cost_mj=lambda n: 0)
    with pytest.raises(Unsupported, match="stood still"):
        meter.probe().measure(subject(model, allow_modelled=True), ["energy"])


def test_a_counter_is_used_also_where_a_modelled_value_is_allowed() -> None:
    meter = FakeMeter()
    model = meter.charge(tiny_llama(), seconds=1.0, cost_mj=lambda n: 1)
    found = only(meter.probe().measure(subject(model, allow_modelled=True), ["energy"]))
    assert found.source is Source.MEASURED


def test_without_a_counter_and_without_leave_energy_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="energy cannot be measured on cpu: no package") as caught:
        EnergyProbe(no_counter).measure(subject(tiny_llama()), ["energy"])
    assert "allow_modelled: true" in caught.value.hint


def test_the_refusal_on_a_gpu_says_what_nvml_lacks() -> None:
    on_gpu = subject(tiny_llama(), device="cuda:0")
    with pytest.raises(Unsupported, match="on cuda:0: NVML has no total energy"):
        EnergyProbe(no_counter).measure(on_gpu, ["energy"])


def test_a_modelled_value_is_marked_so_and_names_its_constants() -> None:
    model = tiny_llama()
    cost = Cost(true_cost(model).parameters, weight_bytes=10**6, prefill_macs=10**9)
    found = only(EnergyProbe(no_counter).measure(subject(model, cost=cost, allow_modelled=True), ["energy"]))
    assert found.source is Source.MODELLED
    assert found.value == pytest.approx(4.76 / CONTEXT)
    assert found.device == ""
    assert "4.6 pJ per 32-bit MAC" in found.note
    assert "160 pJ per byte" in found.note
    assert "Horowitz" in found.note


@pytest.mark.parametrize("opened", [no_counter, FakeMeter().opened])
@pytest.mark.parametrize("allow_modelled", [True, False])
def test_no_estimate_is_ever_marked_measured(
    opened: Callable[[str], AbstractContextManager[Counter | None]], allow_modelled: bool
) -> None:
    """With a counter that shows nothing, or with none, what comes out is modelled or nothing."""
    probe = EnergyProbe(opened, clock=iter(range(10**6)).__next__)
    try:
        found = probe.measure(subject(tiny_llama(), allow_modelled=allow_modelled), ["energy"])
    except Unsupported:
        return
    assert [m.source for m in found] == [Source.MODELLED]


def test_a_model_that_gives_nan_is_not_measured() -> None:
    meter = FakeMeter()
    with pytest.raises(NonFinite):
        meter.probe().measure(subject(broken(tiny_llama()), tiny_llama()), ["energy"])


def test_the_precision_is_that_of_most_weights() -> None:
    model = tiny_llama(dtype=torch.bfloat16)
    model.get_submodule("model.norm").to(torch.float32)
    assert dtype_bits(model) == 16
    assert dtype_bits(tiny_llama()) == 32


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_real_gpu_spends_energy() -> None:
    if counter_available("cuda:0") is None:
        pytest.skip("this GPU has no energy counter")
    model = tiny_llama().to("cuda:0")
    found = only(EnergyProbe().measure(subject(model, device="cuda:0", repeats=3), ["energy"]))
    assert found.source is Source.MEASURED
    assert found.value > 0
