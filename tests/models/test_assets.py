"""The published figures of two real models on real text, where they lie beside the repository."""

import math
from pathlib import Path

import pytest

from hpo.measure.quality import mean_nll
from hpo.models.dense import load_model
from hpo.models.text import Role, read_corpus
from hpo.study import ModelSource, TextSource

ASSETS = Path(__file__).parents[2].parent / "shared" / "assets"

pytestmark = pytest.mark.skipif(not ASSETS.is_dir(), reason=f"no models and texts at {ASSETS}")


def nll(model: str, source: TextSource) -> float:
    dense = load_model(ModelSource(source=str(ASSETS / "models" / model)))
    corpus = read_corpus(source, Role.EVALUATION, dense.tokenizer, dense.context)
    return mean_nll(dense.module, corpus)


@pytest.mark.parametrize(("model", "published"), [("stories260K", 1.536), ("babyllama-361", 0.714)])
def test_documents_reproduce_the_nll_on_200_stories(model: str, published: float) -> None:
    stories = TextSource(documents=str(ASSETS / "text" / "tinystories_clean.json"), limit=200)
    assert nll(model, stories) == pytest.approx(published, abs=0.001)


@pytest.mark.parametrize(("model", "published"), [("stories260K", 123.3), ("babyllama-361", 20.8)])
def test_a_stream_reproduces_the_perplexity_on_wikitext(model: str, published: float) -> None:
    wikitext = TextSource(text=str(ASSETS / "text" / "wikitext2.test.raw.txt"), tokens=20_000)
    assert math.exp(nll(model, wikitext)) == pytest.approx(published, abs=0.05)
