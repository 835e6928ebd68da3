import io
import json
import math
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpo.errors import Unsupported, UsageError
from hpo.models import reference_text as texts
from hpo.models.cache import faults
from hpo.models.dense import DenseModel
from hpo.models.progress import steps_shown
from hpo.models.reference import (
    CONTEXT,
    Recipe,
    byte_tokenizer,
    bytes_as_letters,
    reference_directory,
    reference_recipe,
    train,
)
from hpo.models.reference_text import SHARES, reference_text
from tests.conftest import STEPS

TOKENIZER = byte_tokenizer()


def silent(step: int, loss: float) -> None:
    pass


def test_the_splits_are_large_enough_for_their_purpose() -> None:
    sizes = {name: len(text) for name, text in reference_text().splits.items()}
    assert sizes["train"] > 1_000_000
    assert sizes["calibration"] > 65_536
    assert min(sizes["evaluation"], sizes["final"]) > 32_768


def test_the_text_is_ascii_and_looks_like_prose() -> None:
    for text in reference_text().splits.values():
        assert text.isascii()
        assert len(zlib.compress(text.encode(), 9)) < 0.5 * len(text)


def test_no_long_passage_is_in_two_splits() -> None:
    documents = [passages for _, passages in texts._documents(texts.library())]
    long = [passage for passages in documents[::10] for passage in passages if len(passage) > 200]
    assert len(long) > 100
    for passage in long:
        assert sum(passage in text for text in reference_text().splits.values()) == 1


def test_a_file_has_one_place_whatever_else_there_is() -> None:
    assert texts._place("argparse.py") == texts._place("argparse.py")
    assert {texts._place(f"{n}.py")[1] for n in range(500)} == set(SHARES)


@pytest.mark.parametrize("make", ["missing", "zipped", "stripped"])
def test_a_library_without_sources_is_refused(
    make: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "python311.zip"
    if make == "zipped":
        library.touch()
    if make == "stripped":
        library.mkdir()
        (library / "argparse.py").write_text("import os\n")
        monkeypatch.setattr("pydoc_data.topics.topics", {})
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(library))
    with pytest.raises(Unsupported, match="no reference text"):
        reference_text.__wrapped__()


def test_letters_are_those_of_byte_level_tokenizers() -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(bytes_as_letters()) == set(ByteLevel.alphabet())
    assert len(set(bytes_as_letters())) == 256


@settings(deadline=None)
@given(st.text())
def test_token_ids_are_the_bytes_of_the_text(text: str) -> None:
    ids = TOKENIZER(text, verbose=False)["input_ids"]
    assert ids == list(text.encode())
    assert TOKENIZER.decode(ids) == text


def test_rates_warm_up_stay_and_fall_to_zero() -> None:
    recipe = Recipe(steps=1000, warm_up=20, decay_from=0.4)
    assert recipe.rate(0) == pytest.approx(1 / 20)
    assert recipe.rate(19) == recipe.rate(400) == 1.0
    assert recipe.rate(700) == pytest.approx(0.5)
    assert recipe.rate(999) == pytest.approx(1 / 600)


def test_training_twice_gives_the_same_weights_and_touches_no_global_state() -> None:
    text, recipe = reference_text().splits["train"], Recipe(steps=3)
    state = torch.random.get_rng_state()
    first = train(text, recipe, silent).state_dict()
    torch.rand(7)
    second = train(text, recipe, silent).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.random.set_rng_state(state)
    train(text, recipe, silent)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_training_learns_more_than_the_frequencies_of_the_bytes_would_tell() -> None:
    losses: list[float] = []
    train(reference_text().splits["train"], Recipe(steps=60), lambda step, loss: losses.append(loss))
    assert losses[0] == pytest.approx(math.log(256), abs=0.5)
    assert sum(losses[-5:]) / 5 < 4.5 * math.log(2)  # the entropy of the byte frequencies


def test_it_is_an_ordinary_directory_of_transformers(reference: DenseModel) -> None:
    model = AutoModelForCausalLM.from_pretrained(reference.directory)
    tokenizer = AutoTokenizer.from_pretrained(reference.directory)
    assert sum(p.numel() for p in model.parameters()) == 434_816
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config.max_position_embeddings == CONTEXT
    assert tokenizer("añ")["input_ids"] == [97, 0xC3, 0xB1]
    assert faults(reference.directory, checksums=True) == []
    assert json.loads((reference.directory / "training.json").read_text())["steps"] == STEPS


def test_it_is_trained_once(reference: DenseModel) -> None:
    def refuse(step: int, loss: float) -> None:
        raise AssertionError("trained again")

    assert reference_directory(refuse) == reference.directory


def test_another_number_of_steps_is_another_model(
    reference: DenseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_REFERENCE_STEPS", "1")
    seen: list[int] = []
    assert reference_directory(lambda step, loss: seen.append(step)) != reference.directory
    assert seen == [1]


def test_the_full_recipe_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPO_REFERENCE_STEPS", raising=False)
    assert reference_recipe() == Recipe()


@pytest.mark.parametrize("steps", ["", "0", "-3", "1.5", "many"])
def test_a_number_of_steps_that_is_none_is_refused(steps: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_REFERENCE_STEPS", steps)
    with pytest.raises(UsageError, match="HPO_REFERENCE_STEPS"):
        reference_recipe()


def test_progress_off_a_terminal_is_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with steps_shown("training", 100) as shown:
        for step in range(1, 101):
            shown(step, 2.0)
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 5
    assert err.splitlines()[-1] == "training: step 100 of 100, 2.00 nats per token"


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal)
    with steps_shown("training", 10) as shown:
        for step in range(1, 11):
            shown(step, 2.0)
    assert "training" in terminal.getvalue()
    assert "10/10" in terminal.getvalue()
