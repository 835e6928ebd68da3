"""What the calibration text tells of a model, against sums written out."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers.pytorch_utils import Conv1D

from hpo.compress import fisher, grams, influence
from hpo.compress.architecture import Architecture
from hpo.compress.profiling import Profiler
from hpo.compress.statistics import Statistics
from hpo.errors import NonFinite
from hpo.models.dense import DenseModel
from tests.compress import small

TEXT = small.corpus(3, seed=4)


@pytest.fixture(params=["llama", "gpt2"])
def dense(request: pytest.FixtureRequest) -> DenseModel:
    return small.dense_model(request.param)


def statistics(dense: DenseModel, directory: Path) -> tuple[Statistics, Architecture]:
    profiler = Profiler(dense, TEXT, small.CONTEXT)
    owners = grams.gram_owners(dense.module, TEXT)
    return Statistics(directory, dense.module, TEXT, owners), profiler.architecture


def inputs(dense: DenseModel, name: str) -> Tensor:
    """Return what a layer reads over the text, (N, I)."""
    seen: list[Tensor] = []
    with grams.watching([(name, dense.module.get_submodule(name))], lambda _, x: seen.append(x[0])):
        for sequence in TEXT.sequences:
            dense.module(input_ids=sequence[None], use_cache=False)
    return torch.cat(seen)


def test_magnitudes_are_the_mean_of_what_each_channel_reads(dense: DenseModel, tmp_path: Path) -> None:
    found, architecture = statistics(dense, tmp_path)
    for layer in architecture.layers:
        expected = inputs(dense, layer.name).abs().mean(0)
        assert torch.allclose(found.magnitude(layer).float(), expected, rtol=1e-4)


def test_row_fisher_is_the_mean_squared_gradient_summed_over_columns(
    dense: DenseModel, tmp_path: Path
) -> None:
    found, architecture = statistics(dense, tmp_path)
    weights = [dense.module.get_parameter(f"{layer.name}.weight") for layer in architecture.layers]
    expected = [torch.zeros_like(weight) for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    for sequence in TEXT.sequences:
        logits = dense.module(input_ids=sequence[None], use_cache=False).logits[0, :-1]
        loss = cross_entropy(logits, sequence[1:], reduction="sum")
        gradients = torch.autograd.grad(loss, weights)
        for total, gradient in zip(expected, gradients, strict=True):
            total.add_(gradient**2 / len(TEXT.sequences))
    for weight in weights:
        weight.requires_grad_(False)
    for layer, squares in zip(architecture.layers, expected, strict=True):
        is_transposed = isinstance(dense.module.get_submodule(layer.name), Conv1D)
        rows = squares.sum(0 if is_transposed else 1)
        assert torch.allclose(found.row_fisher(layer).float(), rows, rtol=1e-3, atol=1e-6 * float(rows.max()))


def test_gradients_leave_nothing_behind(tmp_path: Path) -> None:
    dense = small.dense_model()
    before = {name: p.clone() for name, p in dense.module.named_parameters()}
    found, architecture = statistics(dense, tmp_path)
    found.row_fisher(architecture.layers[0])
    for name, parameter in dense.module.named_parameters():
        assert torch.equal(parameter, before[name])
        assert not parameter.requires_grad
        assert parameter.grad is None


def test_block_influence_is_one_minus_the_cosine_of_what_enters_and_leaves(
    dense: DenseModel, tmp_path: Path
) -> None:
    found, architecture = statistics(dense, tmp_path)
    cosines = torch.zeros(architecture.blocks)
    for sequence in TEXT.sequences:
        states = dense.module(input_ids=sequence[None], output_hidden_states=True, use_cache=False)
        before, after = states.hidden_states[0][0], states.hidden_states[1][0]
        cosines[0] += torch.nn.functional.cosine_similarity(before, after, dim=-1).sum() / TEXT.tokens
    influences = found.block_influence
    assert influences.shape == (architecture.blocks,)
    assert float(influences[0]) == pytest.approx(1 - float(cosines[0]), abs=1e-4)
    assert ((influences > 0) & (influences < 2)).all()


def test_a_block_that_adds_nothing_has_no_influence(tmp_path: Path) -> None:
    dense = small.dense_model()
    with torch.no_grad():
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            dense.module.get_parameter(f"model.layers.1.{name}.weight").zero_()
    found, _ = statistics(dense, tmp_path)
    assert float(found.block_influence[1]) == pytest.approx(0, abs=1e-5)
    assert float(found.block_influence[0]) > 0.01


def test_statistics_are_read_from_disk_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = small.dense_model()
    first, architecture = statistics(dense, tmp_path)
    layer = architecture.layers[0]
    kept = [first.magnitude(layer), first.row_fisher(layer), first.block_influence]
    second, _ = statistics(dense, tmp_path)
    monkeypatch.setattr(dense.module, "forward", None)  # nothing may be run
    again = [second.magnitude(layer), second.row_fisher(layer), second.block_influence]
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


def test_a_gradient_that_is_not_finite_is_refused_by_the_name_of_its_layer() -> None:
    dense = small.dense_model()
    with torch.no_grad():
        dense.module.get_parameter("model.embed_tokens.weight").fill_(float("inf"))
    with pytest.raises(NonFinite, match=r"model\.layers\.\d\..*\.weight"):
        fisher.collect_row_fisher(dense.module, TEXT)
    with pytest.raises(NonFinite, match=r"model\.layers\.0"):
        influence.collect_block_influence(dense.module, TEXT)
