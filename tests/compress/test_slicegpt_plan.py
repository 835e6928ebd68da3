"""Plans of narrower residual streams: exact costs, widths, and the maths of the bases."""

import pytest
import torch

from hpo.compress.slicegpt_math import normalised, principal_basis, turned_reader, turned_writer
from hpo.compress.slicegpt_plan import Rotations, Sliced, SlicedStream
from hpo.errors import NonFinite, Unsupported
from tests.compress import small
from tests.compress.narrowing import profiler
from tests.compress.slicing import (
    ROTATIONS,
    WIDTH,
    at_width,
    candidate,
    check_counts,
    model_of,
    narrowed,
    planned,
)

# The maths


def test_a_principal_basis_is_worked_by_hand() -> None:
    # 9 tokens along (3, 4) / 5 and 1 across it.
    along, across = torch.tensor([0.6, 0.8]), torch.tensor([-0.8, 0.6])
    gram = 9 * torch.outer(along, along) + torch.outer(across, across)
    basis, energies = principal_basis(gram, "x")
    assert torch.allclose(energies, torch.tensor([9.0, 1.0]).double())
    assert torch.allclose(basis[:, 0].abs(), along.double())
    assert torch.allclose(basis[:, 1].abs(), across.abs().double())


def test_rows_are_divided_by_their_root_mean_square() -> None:
    found = normalised(torch.tensor([[[3.0, 4.0]]]), 0.0)
    assert torch.allclose(found, torch.tensor([[3.0, 4.0]]) / 12.5**0.5)


def test_readers_and_writers_are_turned_to_meet() -> None:
    generator = torch.Generator().manual_seed(1)
    reader, writer = (torch.randn(shape, generator=generator) for shape in ((5, 4), (4, 3)))
    scale = torch.rand(4, generator=generator)
    basis = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q.double()
    product = turned_reader(reader, scale, basis, "r") @ turned_writer(writer, basis, "w")
    assert torch.allclose(product, (reader * scale).double() @ writer.double(), atol=1e-6)
    with pytest.raises(NonFinite, match="the norm before r"):
        turned_reader(reader, scale * torch.nan, basis, "r")
    with pytest.raises(NonFinite, match="w holds"):
        turned_writer(writer * torch.inf, basis, "w")
    with pytest.raises(NonFinite, match="x holds"):
        principal_basis(torch.full((2, 2), torch.nan), "x")


# Costs


def test_costs_are_worked_by_hand() -> None:
    stream = SlicedStream(vocabulary=10, dense_width=4, width=3, tied=True, norms=5, rotations="per_layer")
    assert stream.costs.parameters == stream.costs.resident == 2 * 10 * 3 + 4 * 3 * 3
    assert stream.costs.macs_per_token == 10 * 3 + 4 * 3 * 3
    assert (stream.dense_parameters, stream.dense_macs_per_token) == (10 * 4 + 5 * 4, 10 * 4)
    apart = SlicedStream(vocabulary=10, dense_width=4, width=3, tied=False, norms=5, rotations="shared")
    assert (apart.costs.parameters, apart.costs.macs_per_token) == (2 * 10 * 3, 10 * 3)
    assert apart.dense_parameters == 2 * 10 * 4 + 5 * 4
    reader = Sliced(6, 4, "reads", 3, "shared", has_bias=True)
    assert (reader.matrices, reader.costs.parameters) == (((6, 3),), 18)
    writer = Sliced(4, 6, "writes", 3, "shared", has_bias=True)
    assert (writer.matrices, writer.costs.parameters, writer.costs.macs_per_token) == (((3, 6),), 18 - 1, 18)
    with pytest.raises(Unsupported, match=r"width of 5 in place of 4[\s\S]*1 to 4"):
        Sliced(6, 4, "reads", 5, "shared")


@pytest.mark.parametrize("rotations", ROTATIONS)
@pytest.mark.parametrize("name", ["tied", "biased", "qwen2", "mistral"])
def test_the_plan_counts_what_the_model_holds_and_computes(name: str, rotations: Rotations) -> None:
    dense = model_of(name)
    plan, model = narrowed(dense, keep_ratio=0.6, multiple=1, rotations=rotations)
    check_counts(plan, model, dense.module)
    assert plan.linear_parameters / plan.architecture.linear_parameters <= 0.6


def test_the_bytes_of_half_precision_are_counted_too() -> None:
    dense = model_of("qwen2", "slicegpt-bfloat16")
    dense.module.to(torch.bfloat16)
    plan, model = narrowed(dense, keep_ratio=0.75)
    check_counts(plan, model, dense.module)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    full = small.logits(at_width(dense, WIDTH, "per_layer")).float()
    expected = small.logits(dense.module).float()
    assert torch.linalg.norm(full - expected) < 0.05 * torch.linalg.norm(expected)


@pytest.mark.parametrize(
    ("keep_ratio", "multiple", "width"),
    [(0.8, 8, 24), (0.8, 1, 25), (0.75, 8, 24), (0.5, 16, 16), (0.8, 64, 16), (0.99, 2, 30)],
)
def test_a_width_is_the_largest_multiple_within_its_share(
    keep_ratio: float, multiple: int, width: int
) -> None:
    plan, _ = narrowed(model_of("llama"), keep_ratio=keep_ratio, multiple=multiple)
    (stream,) = plan.rest
    assert isinstance(stream, SlicedStream)
    assert stream.width == width
    assert plan.linear_parameters * WIDTH == plan.architecture.linear_parameters * width


def test_plans_of_one_width_are_one_object() -> None:
    """So that thousands of candidates are planned without a loop over their layers."""
    base = profiler(model_of("llama"))
    first, again, other = (
        planned(base, candidate(keep_ratio=share, multiple=8)).layers for share in (0.8, 0.76, 0.5)
    )
    assert first is again
    assert first is not other
