"""The first look at a compressed model."""

import copy

import pytest
import torch

from hpo.measure.likelihood import score
from hpo.measure.screen import SCREEN_TOKENS, screen_kl
from hpo.models.dense import DenseModel
from hpo.models.text import Corpus
from tests.compress import small


@pytest.fixture(scope="module")
def llama() -> DenseModel:
    return small.dense_model("llama")


def _noisy(dense: DenseModel, spread: float) -> torch.nn.Module:
    model = copy.deepcopy(dense.module)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return model


def test_the_dense_model_is_nowhere_from_itself_and_damage_shows(llama: DenseModel) -> None:
    corpus = small.corpus(6)
    found = [screen_kl(_noisy(llama, spread), llama.module, corpus) for spread in (0.0, 0.01, 0.1)]
    assert found[0] == pytest.approx(0.0, abs=1e-6)
    assert 1e-5 < found[1] < found[2]


def test_only_the_end_of_the_text_is_read(llama: DenseModel) -> None:
    count = SCREEN_TOKENS // small.CONTEXT
    corpus = small.corpus(count + 5)
    scores = score(_noisy(llama, 0.1), corpus.sequences[5:], llama.module)
    assert scores.kl is not None
    expected = float(scores.kl.sum() / scores.tokens.sum())
    assert screen_kl(_noisy(llama, 0.1), llama.module, corpus) == pytest.approx(expected)


def test_a_sequence_longer_than_that_is_read_whole(
    llama: DenseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.measure.screen.SCREEN_TOKENS", 1)
    corpus = small.corpus(3)
    last = Corpus(corpus.sequences[-1:], bytes=1, digest="last")
    model = _noisy(llama, 0.1)
    assert screen_kl(model, llama.module, corpus) == screen_kl(model, llama.module, last)
