"""Products of integers: hand-worked, the same with and without the kernel, and said beside latencies."""

import pytest
import torch
from torch import nn

from hpo.compress.int8 import Int8Rows, RoundToInt8
from hpo.compress.layers import CorrectedLinear, int8
from hpo.errors import NonFinite
from hpo.measure import device, kernels
from hpo.measure.latency import kernels_of


def test_weights_and_inputs_on_their_grids_are_multiplied_exactly() -> None:
    """127 is the largest of each row and of each token, so scales are 1 and 2 and nothing is rounded."""
    packed = RoundToInt8().quantise(torch.tensor([[127.0, -3.0], [254.0, 10.0]]))
    assert packed.codes.tolist() == [[127, -3], [127, 5]]
    x = torch.tensor([[[1.0, 127.0]], [[-254.0, 4.0]]])
    assert packed.multiply(x).tolist() == [
        [[127.0 - 3 * 127, 254.0 + 10 * 127]],
        [[-254.0 * 127 - 12, -254.0 * 254 + 40]],
    ]


def test_inputs_are_rounded_token_by_token() -> None:
    packed = RoundToInt8().quantise(torch.eye(3))
    x = torch.tensor([[1.0, 0.001, 0.5], [1000.0, 1.0, 500.0]])
    found = packed.multiply(x)
    assert found[0, 1] == 0.0  # less than half a step of 1 / 127
    assert found[1, 1] == 0.0
    assert found[:, 2].tolist() == pytest.approx([64 / 127, 64000 / 127], rel=1e-3)


def test_a_token_of_zeros_gives_zeros() -> None:
    packed = RoundToInt8().quantise(torch.randn(4, 8))
    assert not packed.multiply(torch.zeros(2, 8)).any()


def test_without_the_kernel_the_same_sums_are_taken_in_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    packed = RoundToInt8().quantise(torch.randn(32, 48, generator=generator))
    x = torch.randn(5, 48, generator=generator)
    expected = packed.multiply(x)
    assert packed.kernel == "int8 products"
    monkeypatch.setattr(int8, "kernel_fault", lambda device: "no such instruction")
    assert torch.equal(packed.multiply(x), expected)
    assert packed.kernel == "int8 products in float64 (no such instruction)"
    model = nn.Sequential(CorrectedLinear(packed, None, None, None))
    assert kernels_of(model) == ", weights in few bits: int8 products in float64 (no such instruction)"
    assert kernels_of(nn.Linear(2, 2)) == ""


def test_a_machine_whose_kernel_is_missing_is_another_one_to_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    before = device.fingerprint("cpu", 1)
    assert "without" not in before
    monkeypatch.setattr(
        device, "missing_kernels", lambda name: {kernels.INT8_PRODUCTS: "no such instruction"}
    )
    assert device.fingerprint("cpu", 1) == f"{before} without int8 products"
    assert device.environment()["missing kernels"] == "int8 products: no such instruction"


def test_a_kernel_that_fails_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(left: object, right: object) -> None:
        raise NotImplementedError("not for this processor\nand more")

    monkeypatch.setattr(torch, "_int_mm", failing)
    kernels.missing_kernels.cache_clear()
    int8.kernel_fault.cache_clear()
    try:
        assert kernels.missing_kernels("cpu") == {"int8 products": "not for this processor"}
        assert kernels.missing_kernels("cuda:0") == {}
        assert int8.kernel_fault("cpu") == "not for this processor"
        assert "processors alone" in int8.kernel_fault("cuda")
    finally:
        kernels.missing_kernels.cache_clear()
        int8.kernel_fault.cache_clear()


def test_the_format_counts_a_byte_a_weight_and_a_scale_a_row() -> None:
    packed = RoundToInt8().quantise(torch.randn(6, 10))
    assert Int8Rows().packed_bytes(6, 10) == 6 * 10 + 6 * 2
    assert sum(b.numel() * b.element_size() for b in packed.buffers()) == 72


def test_a_weight_that_is_no_number_is_refused() -> None:
    with pytest.raises(NonFinite, match="NaN or infinity"):
        RoundToInt8().quantise(torch.tensor([[float("nan")]]))
