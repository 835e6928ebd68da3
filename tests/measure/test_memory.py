import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from hpo.errors import HpoError, NonFinite
from hpo.measure.device import fingerprint
from hpo.measure.memory import Held, MemoryProbe, check_cost, peak_of_tensors
from hpo.measure.probe import Cost
from hpo.metric import METRICS, Source
from hpo.trial import Measurement
from tests.measure.subjects import CONTEXT, broken, subject, tiny_llama, true_cost


def peak(model: nn.Module, dense: nn.Module | None = None) -> Measurement:
    (*_, found) = MemoryProbe().measure(subject(model, dense), ["peak_memory"])
    assert found.metric == "peak_memory"
    return found


def test_the_exact_metrics_are_the_plans_and_carry_no_device() -> None:
    model = tiny_llama()
    cost = true_cost(model, prefill_macs=CONTEXT * 1234)
    found = {m.metric: m for m in MemoryProbe().measure(subject(model, cost=cost), ["macs"])}
    # Embedding 64 x 32 (tied), 2 x (4 of 32 x 32, 3 of 32 x 64, 2 norms of 32), last norm 32.
    assert found["parameters"].value == 64 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32
    assert found["weight_memory"].value == 4 * found["parameters"].value
    assert found["macs"].value == 1234
    assert set(found) == {"weight_memory", "parameters", "macs"}
    for name, measurement in found.items():
        assert measurement.source is Source.EXACT
        assert measurement.device == ""
        assert measurement.unit == METRICS[name].unit


@pytest.mark.parametrize(
    ("field", "what"), [("parameters", "parameters"), ("weight_bytes", "bytes of weights")]
)
@pytest.mark.parametrize("off_by", [-1, 1])
def test_a_plan_that_is_wrong_by_one_is_refused_with_both_numbers(field: str, what: str, off_by: int) -> None:
    model = tiny_llama()
    truth = true_cost(model)
    true_number = getattr(truth, field)
    lie = dataclasses.replace(truth, **{field: true_number + off_by})
    with pytest.raises(HpoError) as caught:
        MemoryProbe().measure(subject(model, cost=lie), ["weight_memory"])
    assert (
        caught.value.message == f"the plan counts {true_number + off_by} {what}, the model has {true_number}"
    )


def test_half_precision_halves_the_bytes() -> None:
    full, half = Held.by(tiny_llama()), Held.by(tiny_llama(dtype=torch.bfloat16))
    assert half.parameters == full.parameters
    assert half.parameter_bytes * 2 == full.parameter_bytes


class KeepsItsProduct(nn.Module):
    """Two factors whose product is made in the first forward and kept: 4 x 2, 2 x 4, and 4 x 4."""

    product: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.ones(4, 2))
        self.right = nn.Parameter(torch.ones(2, 4))
        self.register_buffer("product", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.product is None:
            self.product = self.left @ self.right
        return x @ self.product


class Toy(nn.Module):
    """The least that can be measured: an embedding of 8 x 4, one layer, and a table that is no weight."""

    def __init__(self, layer: nn.Module, keep_input: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 4)
        self.layer = layer
        self.keep_input = keep_input
        self.register_buffer("table", torch.zeros(100))

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        hidden = self.embedding(input_ids)
        doubled = hidden * 2
        if not self.keep_input:
            del hidden
        return SimpleNamespace(logits=self.layer(doubled))


class AddOne(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(1, -1, 2, 2).add(1).view_as(x)


def test_a_matrix_that_is_rebuilt_and_kept_is_weight_and_a_table_of_the_dense_model_is_none() -> None:
    model, dense = Toy(KeepsItsProduct()), Toy(nn.Linear(4, 4, bias=False))
    cost = Cost(parameters=32 + 16, weight_bytes=4 * (32 + 16 + 16), prefill_macs=1)
    found = MemoryProbe().measure(subject(model, dense, cost=cost), ["weight_memory"])
    assert found[0].value == 4 * 64


def test_the_kept_matrix_must_be_in_the_plan() -> None:
    model, dense = Toy(KeepsItsProduct()), Toy(nn.Linear(4, 4, bias=False))
    forgetful = subject(model, dense, cost=Cost(48, 4 * 48, 1))
    with pytest.raises(HpoError, match="counts 192 bytes of weights, the model has 256"):
        MemoryProbe().measure(forgetful, ["weight_memory"])


def test_the_dense_model_is_checked_too() -> None:
    dense = Toy(AddOne())
    check_cost(subject(dense, cost=Cost(32, 128, 1)))
    with pytest.raises(HpoError, match="counts 31 parameters"):
        check_cost(subject(dense, cost=Cost(31, 128, 1)))


def test_the_peak_of_tensors_by_hand() -> None:
    ids = torch.zeros((1, 10), dtype=torch.long)
    with torch.no_grad():
        # 10 ids of 8 bytes, and three tensors of 10 x 4 floats: embedded, doubled, added. Views are free.
        assert peak_of_tensors(Toy(AddOne()), ids) == 80 + 3 * 160
        # The embedded one is dropped before the sum is made.
        assert peak_of_tensors(Toy(AddOne(), keep_input=False), ids) == 80 + 2 * 160


def test_a_weight_held_outside_parameters_and_buffers_is_seen_when_it_is_used() -> None:
    hidden_weight = torch.ones(1000, 4)[:3]

    class Smuggler(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[..., :3] @ hidden_weight

    ids = torch.zeros((1, 10), dtype=torch.long)
    with torch.no_grad():
        # Only the piece that is used counts: 3 x 4 floats. The matrix product gives 10 x 4.
        assert peak_of_tensors(Toy(Smuggler()), ids) == 80 + 3 * 160 + 48


def test_the_peak_is_weights_and_buffers_and_tensors_and_the_same_each_time() -> None:
    model = tiny_llama()
    first, second = peak(model), peak(model)
    held = Held.by(model)
    with torch.no_grad():
        beside = peak_of_tensors(model, (torch.arange(CONTEXT) * 7919 % 64)[None])
    assert first == second
    assert first.value == held.parameter_bytes + held.buffer_bytes + beside
    assert first.source is Source.MEASURED
    assert first.device == fingerprint("cpu", torch.get_num_threads())
    assert first.unit == "bytes"


def test_the_peak_follows_the_models_width_beyond_its_weights() -> None:
    dense, wide = tiny_llama(), tiny_llama(inner=1024)
    weights = Held.by(wide).parameter_bytes - Held.by(dense).parameter_bytes
    # Gate, up and their product: at least two rows of 1024 floats a token are alive at once.
    assert peak(wide, dense).value - peak(dense).value > weights + 2 * (1024 - 64) * 4 * CONTEXT * 0.9


def test_the_peak_is_not_measured_unless_it_is_wanted() -> None:
    found = MemoryProbe().measure(subject(tiny_llama()), ["parameters"])
    assert "peak_memory" not in [m.metric for m in found]


def test_a_model_that_gives_nan_is_refused() -> None:
    with pytest.raises(NonFinite):
        MemoryProbe().measure(subject(broken(tiny_llama()), tiny_llama()), ["parameters"])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_cuda_the_dense_model_beside_it_is_not_counted() -> None:
    dense = tiny_llama(inner=200_000).to("cuda:0")
    model = tiny_llama().to("cuda:0")
    (*_, found) = MemoryProbe().measure(subject(model, dense, device="cuda:0"), ["peak_memory"])
    held = Held.by(model)
    assert held.parameter_bytes < found.value < Held.by(dense).parameter_bytes
