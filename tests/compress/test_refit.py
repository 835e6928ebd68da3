"""The sequential refit on whole models."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpo.compress.applying import compressed
from hpo.compress.grams import watching
from hpo.compress.layers import LowRankLinear
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.refit import refit
from hpo.compress.surgery import shared_copy, weight_of
from hpo.errors import Unsupported
from hpo.measure.quality import mean_nll
from hpo.models.dense import DenseModel
from hpo.models.text import Corpus, Role, read_corpus
from hpo.space import Candidate
from hpo.study import TextSource
from tests.compress import small

TEXT = small.corpus(8, seed=1)


def made(dense: DenseModel, text: Corpus, **knobs: Any) -> nn.Module:
    """Compress by whitened SVD."""
    given = {f"factorise.{name}": value for name, value in knobs.items()}
    asked = Candidate.of({"factorise": "whitened_svd", **given})
    profiler = Profiler(dense, text, small.CONTEXT)
    plan = plan_of(profiler.profile(preparations_of(asked)), asked)
    return compressed(profiler, asked, plan)


def low_rank_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if hasattr(module, "left")]


def seen(model: nn.Module, name: str, text: Corpus) -> Tensor:
    """Return what a layer reads, (N, I)."""
    found: list[Tensor] = []
    with (
        watching([(name, model.get_submodule(name))], lambda _, x: found.append(x.flatten(0, -2))),
        torch.no_grad(),
    ):
        for sequence in text.sequences:
            model(input_ids=sequence[None], use_cache=False)
    return torch.cat(found).double()


def output_error(model: nn.Module, dense: nn.Module, name: str, text: Corpus, layer: Any = None) -> float:
    """Return ||W X - left right X'||^2, X' what the layer reads in `model`."""
    layer = layer or model.get_submodule(name)
    wanted = seen(dense, name, text) @ weight_of(dense.get_submodule(name)).double().T
    given = seen(model, name, text) @ (layer.left.double() @ layer.right.double()).T
    return float((wanted - given).square().sum())


@pytest.mark.parametrize("family", list(small.FAMILIES))
def test_no_layer_gets_worse_on_the_inputs_it_is_given(family: str) -> None:
    """For every layer, given what the model refitted before it hands on: the new left against the old."""
    dense = small.dense_model(family)
    sliced, fitted = (made(dense, TEXT, keep_ratio=0.4, refit=wanted) for wanted in (False, True))
    names = low_rank_names(fitted)
    assert names
    gained = 0
    for name in names:
        before = output_error(fitted, dense.module, name, TEXT, sliced.get_submodule(name))
        after = output_error(fitted, dense.module, name, TEXT)
        assert after <= before * (1 + 1e-4)
        gained += after < before * 0.999
    assert gained > len(names) / 2  # the first layers read what the dense ones read


def test_a_refit_brings_the_model_nearer_to_the_dense_one_and_to_the_text(reference: DenseModel) -> None:
    text = read_corpus(TextSource(reference=True, tokens=8192), Role.CALIBRATION, reference.tokenizer, 128)
    sliced, fitted = (made(reference, text, keep_ratio=0.4, refit=wanted) for wanted in (False, True))
    expected = mean_nll(reference.module, text)
    before, after = mean_nll(sliced, text), mean_nll(fitted, text)
    assert expected < after < before
    assert after - expected < 0.9 * (before - expected)


def test_without_compression_before_it_a_layer_keeps_its_best_factors() -> None:
    """The first layers read dense inputs: whitened factors are the best already."""
    dense = small.dense_model()
    sliced, fitted = (made(dense, TEXT, keep_ratio=0.4, refit=wanted) for wanted in (False, True))
    for name in ("q_proj", "k_proj", "v_proj"):
        before, after = (m.get_submodule(f"model.layers.0.self_attn.{name}") for m in (sliced, fitted))
        assert isinstance(before, LowRankLinear)
        assert isinstance(after, LowRankLinear)
        products = [before.dense_weight(), after.dense_weight()]
        error = torch.linalg.norm(products[0] - products[1]) / torch.linalg.norm(products[0])
        assert float(error) < 1e-2


def test_layers_that_stay_dense_are_left_alone_and_the_rest_follow() -> None:
    dense = small.dense_model()
    fitted = made(dense, TEXT, keep_ratio=0.7, refit=True, protect_first=1)
    assert all(name.startswith("model.layers.1.") for name in low_rank_names(fitted))
    assert torch.isfinite(small.logits(fitted)).all()


def test_a_model_whose_blocks_do_not_follow_one_another_is_refused() -> None:
    dense = small.dense_model()
    model, other = made(dense, TEXT, keep_ratio=0.5), shared_copy(dense.module)
    second = other.get_submodule("model.layers.1")
    second.register_forward_pre_hook(lambda _, args: (args[0] * 2, *args[1:]))
    with pytest.raises(Unsupported, match=r"layers\.1 does not read what .*layers\.0 puts out"):
        refit(model, other, low_rank_names(model), TEXT)


def test_only_the_beginning_of_a_long_text_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, longer = small.dense_model(), small.corpus(40, seed=1)
    monkeypatch.setattr("hpo.compress.refit.TOKENS", 8 * small.CONTEXT)
    models = [made(dense, TEXT, keep_ratio=0.5) for _ in range(2)]
    for model, text in zip(models, (longer, replace(longer, sequences=longer.sequences[:8])), strict=True):
        refit(model, dense.module, low_rank_names(model), text)
    assert torch.allclose(small.logits(models[0]), small.logits(models[1]), atol=1e-4)
