import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from hpo.errors import NonFinite
from hpo.measure import likelihood
from hpo.measure.likelihood import score
from hpo.measure.probe import Cost, Subject
from hpo.measure.quality import QualityProbe, mean_and_error, mean_nll
from hpo.metric import METRICS, Source
from hpo.models.text import Corpus
from hpo.trial import Measurement
from tests.measure.subjects import broken, tiny_llama

VOCABULARY = 64


class Fixed(nn.Module):
    """A model whose logits do not depend on what it reads."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float64).float(), requires_grad=False)

    def forward(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        assert not use_cache
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, -1))


def corpus(*lengths: int, seed: int = 0) -> Corpus:
    generator = torch.Generator().manual_seed(seed)
    sequences = tuple(torch.randint(VOCABULARY, (length,), generator=generator) for length in lengths)
    return Corpus(sequences, 3 * (sum(lengths) - len(lengths)), "0" * 64)


def subject(model: nn.Module, text: Corpus, dense: nn.Module | None = None) -> Subject:
    return Subject(model, model if dense is None else dense, Cost(1, 4, 1), text, 16, "cpu")


def measured(of: Subject, *wanted: str) -> dict[str, Measurement]:
    return {m.metric: m for m in QualityProbe().measure(of, wanted or QualityProbe.metrics)}


@torch.no_grad()
def plain_sums(model: nn.Module, text: Corpus) -> list[float]:
    """Score one sequence at a time, one token at a time."""
    sums = []
    for sequence in text.sequences:
        logits = model(input_ids=sequence[None], use_cache=False).logits[0].double()
        steps = range(len(sequence) - 1)
        sums.append(sum(float(logits[t].logsumexp(0) - logits[t, sequence[t + 1]]) for t in steps))
    return sums


def test_a_model_that_guesses_has_the_perplexity_of_its_vocabulary() -> None:
    found = measured(subject(Fixed([0.0] * VOCABULARY), corpus(16, 16, 5)))
    assert found["perplexity"].value == pytest.approx(VOCABULARY)
    assert found["nll"].value == pytest.approx(math.log(VOCABULARY))
    assert found["bits_per_byte"].value == pytest.approx(6 / 3)  # 6 bits a token, 3 bytes a token
    assert found["nll"].spread == pytest.approx(0, abs=1e-6)


def test_a_hand_worked_text() -> None:
    """Probabilities 3/4 and 1/4; of 3 predicted tokens two are the likely one."""
    text = Corpus((torch.tensor([1, 0, 0]), torch.tensor([1, 1])), 3, "")
    found = measured(subject(Fixed([math.log(3), 0.0]), text))
    expected = (2 * math.log(4 / 3) + math.log(4)) / 3
    assert found["nll"].value == pytest.approx(expected)
    assert found["perplexity"].value == pytest.approx(math.exp(expected))
    assert found["bits_per_byte"].value == pytest.approx(expected / math.log(2))


def test_scores_are_those_of_a_plain_loop() -> None:
    model, text = tiny_llama(), corpus(16, 7, 16, 16, 2, 7)
    scores = score(model, text.sequences)
    assert scores.nll.tolist() == pytest.approx(plain_sums(model, text), rel=1e-6)
    assert scores.tokens.tolist() == [15, 6, 15, 15, 1, 6]
    assert mean_nll(model, text) == pytest.approx(sum(plain_sums(model, text)) / text.predicted, rel=1e-6)


def test_neither_batches_nor_chunks_of_positions_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model, dense, text = tiny_llama(48), tiny_llama(), corpus(*[16] * 9, 5, 5)
    whole = score(model, text.sequences, dense)
    monkeypatch.setattr(likelihood, "_BATCH_TOKENS", 40)
    monkeypatch.setattr(likelihood, "_CHUNK", 4)
    parts = score(model, text.sequences, dense)
    assert parts.nll.tolist() == pytest.approx(whole.nll.tolist(), rel=1e-5)
    assert parts.kl is not None
    assert whole.kl is not None
    assert parts.kl.tolist() == pytest.approx(whole.kl.tolist(), rel=1e-4)


def test_the_divergence_is_from_dense_to_model() -> None:
    dense, model = Fixed([math.log(3), 0.0]), Fixed([0.0, 0.0])
    text = Corpus((torch.tensor([0, 1, 0, 1]), torch.tensor([1, 0])), 4, "")
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert measured(subject(model, text, dense))["kl_to_dense"].value == pytest.approx(expected, rel=1e-6)


def test_the_dense_model_has_no_divergence_from_itself() -> None:
    assert measured(subject(tiny_llama(), corpus(16, 16)))["kl_to_dense"].value == 0.0


def test_the_dense_model_is_not_run_where_no_divergence_is_wanted() -> None:
    of = subject(tiny_llama(), corpus(16), broken(tiny_llama()))
    assert set(measured(of, "perplexity")) == {"perplexity", "nll", "bits_per_byte"}


def test_the_error_of_a_mean_over_equal_sequences_is_the_standard_one() -> None:
    sums, tokens = torch.tensor([2.0, 4.0, 6.0, 8.0]), torch.full((4,), 2.0)
    mean, error = mean_and_error(sums, tokens)
    assert mean == 2.5  # means 1, 2, 3, 4
    assert error == pytest.approx(math.sqrt(5 / 3) / 2)  # standard deviation over sqrt(4)


def test_one_sequence_tells_nothing_of_its_error() -> None:
    assert mean_and_error(torch.tensor([6.0]), torch.tensor([3.0])) == (2.0, 0.0)


def test_the_spread_covers_what_other_text_of_the_kind_gives() -> None:
    model = tiny_llama()
    means = torch.tensor([mean_nll(model, corpus(*[9] * 12, seed=seed)) for seed in range(60)])
    spread = measured(subject(model, corpus(*[9] * 12, seed=99)), "nll")["nll"].spread
    assert 0.5 < spread / float(means.std()) < 2


def test_the_spread_of_perplexity_is_by_the_delta_method() -> None:
    found = measured(subject(tiny_llama(), corpus(9, 9, 16)))
    assert found["perplexity"].spread == pytest.approx(found["perplexity"].value * found["nll"].spread)
    assert found["nll"].spread > 0


def test_measurements_say_what_they_are() -> None:
    found = measured(subject(tiny_llama(), corpus(16, 9)))
    assert set(found) == set(QualityProbe.metrics)
    for name, measurement in found.items():
        assert measurement.unit == METRICS[name].unit
        assert measurement.source is Source.MEASURED
        assert measurement.device.startswith("cpu: ")
        assert "23 tokens in 2 sequences" in measurement.note


def test_a_logit_that_is_not_finite_names_its_window_and_is_not_skipped() -> None:
    with pytest.raises(NonFinite, match="window 0 of 3"):
        measured(subject(broken(tiny_llama()), corpus(16, 16, 16)))
    with pytest.raises(NonFinite, match="window 0 of 1"):
        mean_nll(Fixed([0.0, math.inf]), Corpus((torch.tensor([0, 0]),), 1, ""))


def test_only_the_window_with_the_fault_is_named() -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.get_parameter("model.embed_tokens.weight")[63] = math.nan
        model.lm_head = nn.Linear(32, 63, bias=False)  # untied, so that only reading token 63 hurts
    text = Corpus((torch.tensor([1, 2, 3]), torch.tensor([1, 63, 3]), torch.tensor([1, 2])), 5, "")
    with pytest.raises(NonFinite, match="window 1 of 3"):
        mean_nll(model, text)


def test_a_destroyed_model_is_a_failure_not_a_huge_number() -> None:
    with pytest.raises(NonFinite, match="destroyed"):
        measured(subject(Fixed([0.0, 100.0]), Corpus((torch.tensor([0, 0]),), 1, "")))
    text = Corpus((torch.tensor([0, 0]),), 1, "")
    assert measured(subject(Fixed([0.0, 60.0]), text))["perplexity"].value == pytest.approx(math.exp(60))


def test_the_mode_of_a_model_in_training_is_put_back_and_no_gradient_is_left() -> None:
    model = tiny_llama().train()
    mean_nll(model, corpus(16))
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_low_precision_is_scored_in_float32() -> None:
    logits = Fixed([0.0] * 1000)
    half = Fixed([0.0] * 1000)
    half.logits.data = half.logits.data.bfloat16()
    text = Corpus((torch.arange(500),), 1, "")
    assert mean_nll(half, text) == pytest.approx(mean_nll(logits, text), rel=1e-7)
