"""Sums of salience, moments and gradients of a calibration text, against what torch says directly."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hpo.compress import taylor
from hpo.compress.architecture import Architecture
from hpo.compress.gradients import run_gradients
from hpo.compress.grams import gram_owners, watching
from hpo.compress.moments import collect_moments
from hpo.compress.profiling import Profiler
from hpo.compress.statistics import Statistics
from hpo.compress.surgery import weight_of
from hpo.errors import NonFinite
from hpo.models.dense import DenseModel
from tests.compress import small

TEXT = small.corpus(3, seed=4)


@pytest.fixture(params=["llama", "gpt2"])
def dense(request: pytest.FixtureRequest) -> DenseModel:
    return small.dense_model(request.param)


def statistics(dense: DenseModel, directory: Path) -> tuple[Statistics, Architecture]:
    profiler = Profiler(dense, TEXT, small.CONTEXT)
    return Statistics(directory, dense.module, TEXT, gram_owners(dense.module, TEXT)), profiler.architecture


def gradients(dense: DenseModel, name: str) -> Tensor:
    """Return the gradient (S, O, I) of each sequence's summed loss."""
    module = dense.module.get_submodule(name)
    weight = module.get_parameter("weight").requires_grad_(True)
    found = []
    for sequence in TEXT.sequences:
        logits = dense.module(input_ids=sequence[None], use_cache=False).logits[0, :-1]
        loss = cross_entropy(logits, sequence[1:], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, weight)
        found.append(gradient if isinstance(module, torch.nn.Linear) else gradient.T)
    weight.requires_grad_(False)
    return torch.stack(found)


def test_salience_is_summed_over_rows_and_columns(dense: DenseModel, tmp_path: Path) -> None:
    found, architecture = statistics(dense, tmp_path)
    for layer in architecture.layers:
        gradient_SOI = gradients(dense, layer.name)
        weight = weight_of(dense.module.get_submodule(layer.name))
        mean, squared = gradient_SOI.mean(0), gradient_SOI.square().mean(0)
        for order in taylor.ORDERS:
            values = taylor.salience(weight, mean, squared, order)
            rows_O, columns_I = found.taylor(layer, order)
            assert rows_O.dtype == torch.float64
            assert torch.allclose(rows_O.float(), values.sum(1), rtol=1e-3, atol=1e-5)
            assert torch.allclose(columns_I.float(), values.sum(0), rtol=1e-3, atol=1e-5)


def test_gradients_leave_the_model_as_it_was(dense: DenseModel) -> None:
    before = {name: parameter.clone() for name, parameter in dense.module.named_parameters()}
    seen: list[str] = []
    run_gradients(dense.module, TEXT.sequences, lambda name, _: seen.append(name))
    assert set(seen) == {name for name, _ in small.weights(dense.module)}
    assert len(seen) == 3 * len(set(seen))
    for name, parameter in dense.module.named_parameters():
        assert not parameter.requires_grad
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])


def test_no_more_sequences_are_read_than_settle_the_sums(
    dense: DenseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taylor, "SEQUENCES", 1)
    few = taylor.collect_taylor(dense.module, TEXT)
    alone = taylor.collect_taylor(dense.module, small.corpus(1, seed=4))
    assert {key: value.tolist() for key, value in few.items()} == {
        key: value.tolist() for key, value in alone.items()
    }


def test_moments_are_mean_and_variance_over_all_tokens(dense: DenseModel, tmp_path: Path) -> None:
    found, architecture = statistics(dense, tmp_path)
    seen: dict[str, list[Tensor]] = {layer.name: [] for layer in architecture.layers}
    modules = [(name, dense.module.get_submodule(name)) for name in seen]
    with watching(modules, lambda name, x: seen[name].append(x[0].double())), torch.no_grad():
        for sequence in TEXT.sequences:
            dense.module(input_ids=sequence[None], use_cache=False)
    for layer in architecture.layers:
        x_NI = torch.cat(seen[layer.name])
        mean, variance = found.moments(layer)
        assert torch.allclose(mean, x_NI.mean(0), atol=1e-9)
        assert torch.allclose(variance, x_NI.var(0, correction=0), rtol=1e-6, atol=1e-9)


def test_what_is_not_finite_is_named(tmp_path: Path) -> None:
    dense = small.dense_model("llama")
    owners = gram_owners(dense.module, TEXT)
    with torch.no_grad():
        dense.module.get_parameter("model.layers.1.mlp.up_proj.weight")[0, 0] = float("nan")
    with pytest.raises(NonFinite, match=r"a gradient of model\.layers\.\d"):
        taylor.collect_taylor(dense.module, TEXT)
    with pytest.raises(NonFinite, match=r"an input of model\.layers\.1\.mlp\.down_proj"):
        collect_moments(dense.module, TEXT, owners)
