import pytest
import torch
from torch import Tensor, nn

from hpo.compress.factors import FactorStore
from hpo.compress.own_text import PROMPT, continued, own_text
from hpo.errors import Unsupported
from hpo.models.dense import DenseModel
from tests.compress import small
from tests.compress.healing import counting


def test_texts_are_as_long_as_what_they_continue_and_begin_alike(llama: DenseModel) -> None:
    begun = [*counting(3).sequences, counting(1).sequences[0][:12], torch.tensor([5, 6])]
    written = continued(llama.module, begun, PROMPT, seed=3)
    assert [len(sequence) for sequence in written] == [32, 32, 32, 12, 2]
    for sequence, beginning in zip(written, begun, strict=True):
        assert torch.equal(sequence[:PROMPT], beginning[:PROMPT])
    assert not torch.equal(written[0], begun[0])


def test_the_same_seed_writes_the_same_and_another_does_not(llama: DenseModel) -> None:
    first, again, other = (continued(llama.module, counting(4).sequences, 8, seed)[0] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_tokens_are_drawn_as_the_model_has_them(llama: DenseModel) -> None:
    # one prompt, many continuations by a token: their shares are the model's probabilities
    prompt = counting(1).sequences[0][:9]
    written = torch.stack(continued(llama.module, [prompt] * 2000, 8, seed=0))
    with torch.no_grad():
        wanted = llama.module(input_ids=prompt[None, :8]).logits[0, -1].softmax(-1)
    found = torch.bincount(written[:, 8], minlength=small.VOCABULARY) / len(written)
    # the largest deviation of 64 shares, each with a standard error below 0.0112
    assert float((found - wanted).abs().max()) < 0.05


def test_text_is_written_once_and_kept(llama: DenseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    store, corpus = FactorStore("own-text-of-a-test"), counting(6)
    first = own_text(llama.module, corpus, store)
    monkeypatch.setattr("hpo.compress.own_text.continued", None)
    again = own_text(llama.module, corpus, store)
    assert all(torch.equal(a, b) for a, b in zip(first.sequences, again.sequences, strict=True))
    assert first.digest == again.digest != corpus.digest
    assert len(first.sequences) == 6


def test_a_model_that_keeps_no_keys_and_values_cannot_write() -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: Tensor, **_: object) -> object:
            return type("Output", (), {"logits": torch.zeros(*input_ids.shape, 4)})()

    with pytest.raises(Unsupported, match="text: calibration"):
        continued(Forgetful(), counting(1).sequences, 8, 0)
