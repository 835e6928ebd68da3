import json
import lzma
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from hpo.errors import InvalidStudy, Unsupported
from hpo.models.encoding import encode, encode_start
from hpo.models.reference import byte_tokenizer
from hpo.models.reference_text import reference_text
from hpo.models.text import REFERENCE_TOKENS, Corpus, Role, check_disjoint, read_corpus
from hpo.study import TextSource

BYTES = byte_tokenizer()
WITH_BOS = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer().backend_tokenizer, bos_token="<s>")
BOS = 256
CONTEXT = 8


def ids(corpus: Corpus) -> list[list[int]]:
    return [sequence.tolist() for sequence in corpus.sequences]


def letters(corpus: Corpus) -> list[str]:
    return ["".join("^" if i == BOS else chr(i) for i in sequence) for sequence in ids(corpus)]


def read(source: dict[str, Any], role: Role = Role.EVALUATION, tokenizer: Any = BYTES) -> Corpus:
    return read_corpus(TextSource.model_validate(source), role, tokenizer, CONTEXT)


def refusal(source: dict[str, Any], role: Role = Role.EVALUATION) -> InvalidStudy:
    with pytest.raises(InvalidStudy) as caught:
        read(source, role)
    return caught.value


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "text.txt").write_text("abcdefghijklmnopqrstuvwxyz")
    return str(tmp_path / "text.txt")


def documents(tmp_path: Path, *entries: object) -> str:
    (tmp_path / "documents.json").write_text(json.dumps(entries))
    return str(tmp_path / "documents.json")


# The two protocols


def test_a_stream_is_cut_into_windows_and_the_rest_is_kept(text: str) -> None:
    corpus = read({"text": text})
    assert letters(corpus) == ["abcdefgh", "ijklmnop", "qrstuvwx", "yz"]
    assert (corpus.tokens, corpus.predicted, corpus.bytes) == (26, 22, 22)


def test_a_last_window_of_one_token_predicts_nothing_and_is_dropped(text: str) -> None:
    assert letters(read({"text": text, "tokens": 17})) == ["abcdefgh", "ijklmnop"]


def test_a_stream_gets_no_special_tokens(text: str) -> None:
    assert letters(read({"text": text, "tokens": 8}, tokenizer=WITH_BOS)) == ["abcdefgh"]


def test_documents_are_read_alone_after_the_first_token_and_cut(tmp_path: Path) -> None:
    path = documents(tmp_path, "one", {"text": "twenty-two"}, "é")
    corpus = read({"documents": path}, tokenizer=WITH_BOS)
    assert letters(corpus)[:2] == ["^one", "^twenty-"]
    assert ids(corpus)[2] == [BOS, 0xC3, 0xA9]
    assert (corpus.predicted, corpus.bytes) == (3 + 7 + 2, 3 + 7 + 2)


def test_without_a_first_token_a_document_begins_with_its_own(tmp_path: Path) -> None:
    corpus = read({"documents": documents(tmp_path, "one", "x", "two")})
    assert letters(corpus) == ["one", "two"]  # one token alone predicts nothing
    assert (corpus.predicted, corpus.bytes) == (4, 4)


def test_documents_are_limited_in_number_and_tokens(tmp_path: Path) -> None:
    path = documents(tmp_path, "abcd", "efgh", "ijkl")
    assert letters(read({"documents": path, "limit": 2})) == ["abcd", "efgh"]
    assert letters(read({"documents": path, "tokens": 6})) == ["abcd", "ef"]
    assert letters(read({"documents": path, "tokens": 5})) == ["abcd"]


def test_documents_name_their_column(tmp_path: Path) -> None:
    path = documents(tmp_path, {"story": "once"})
    assert letters(read({"documents": path, "column": "story"})) == ["once"]
    error = refusal({"documents": path})
    assert "document 0" in error.message
    assert "story" in error.hint


def test_the_reference_text_of_each_role_is_its_own() -> None:
    for role in Role:
        corpus = read({"reference": True}, role)
        beginning = "".join(letters(corpus)[:50])
        assert reference_text().splits[role.value].startswith(beginning)
    assert read({"reference": True}, Role.CALIBRATION).tokens > REFERENCE_TOKENS
    assert read({"reference": True}, Role.EVALUATION).tokens == REFERENCE_TOKENS
    assert read({"reference": True, "tokens": 80}, Role.FINAL).tokens == 80


# Text that the search never saw


def test_the_final_text_of_a_stream_follows_the_evaluation(text: str) -> None:
    assert letters(read({"text": text, "tokens": 10})) == ["abcdefgh", "ij"]
    assert letters(read({"text": text, "tokens": 10}, Role.FINAL)) == ["klmnopqr", "st"]
    assert letters(read({"text": text, "tokens": 16}, Role.FINAL)) == ["qrstuvwx", "yz"]


def test_the_final_documents_follow_the_evaluation(tmp_path: Path) -> None:
    path = documents(tmp_path, "abcd", "efgh", "ijkl", "mnop", "qrst")
    assert letters(read({"documents": path, "limit": 2}, Role.FINAL)) == ["ijkl", "mnop"]
    assert letters(read({"documents": path, "tokens": 6}, Role.FINAL)) == ["ijkl", "mn"]
    assert letters(read({"documents": path, "limit": 3}, Role.FINAL)) == ["mnop", "qrst"]


def test_no_final_text_is_left_where_the_evaluation_takes_all(text: str, tmp_path: Path) -> None:
    assert "none is left" in refusal({"text": text}, Role.FINAL).message
    assert "0 tokens left" in refusal({"text": text, "tokens": 26}, Role.FINAL).message
    path = documents(tmp_path, "abcd", "efgh")
    assert "none is left" in refusal({"documents": path}, Role.FINAL).message
    assert "left for the final" in refusal({"documents": path, "limit": 2}, Role.FINAL).message


# What is refused


def test_a_missing_file_is_named_with_its_key_and_its_neighbour(text: str) -> None:
    error = refusal({"text": text.replace("text.txt", "test.txt")})
    assert error.where == ("data", "evaluation", "text")
    assert "data.evaluation.text" in error.message
    assert "did you mean 'text.txt'" in error.hint
    assert refusal({"text": str(Path(text).parent)}).hint == "name a file in it"


def test_where_follows_the_role_or_the_caller(text: str) -> None:
    assert refusal({"text": "none"}, Role.CALIBRATION).where == ("data", "calibration", "text")
    assert refusal({"documents": "none"}, Role.FINAL).where == ("data", "evaluation", "documents")
    with pytest.raises(InvalidStudy) as caught:
        read_corpus(TextSource(text="none"), Role.EVALUATION, BYTES, CONTEXT, ("elsewhere",))
    assert caught.value.where == ("elsewhere", "text")


def test_text_that_is_not_utf8_is_refused_at_its_byte(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("na\xefve and longer".encode("latin-1"))
    assert "not UTF-8 at byte 2" in refusal({"text": str(tmp_path / "latin.txt")}).message


def test_a_text_shorter_than_a_window_names_both_lengths(tmp_path: Path) -> None:
    for short in ("", "a", "abcdefg"):
        (tmp_path / "short.txt").write_text(short)
        message = refusal({"text": str(tmp_path / "short.txt")}).message
        assert f"{len(short)} tokens" in message
        assert "one window has 8" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ('{"text": "one"}', "holds a dict"),
        ("[]", "an empty list"),
        ('["one", ""]', "document 1"),
        ('["one", 3]', "document 1"),
        ('[{"text": null}]', "document 0"),
    ],
)
def test_documents_that_are_none_are_refused(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "documents.json").write_text(content)
    error = refusal({"documents": str(tmp_path / "documents.json")})
    assert words in error.message
    assert error.where == ("data", "evaluation", "documents")


def test_documents_all_too_short_are_refused(tmp_path: Path) -> None:
    assert "no document of 2 tokens" in refusal({"documents": documents(tmp_path, "a", "b")}).message


def test_a_limit_on_a_stream_is_refused_at_its_key(text: str) -> None:
    error = refusal({"text": text, "limit": 3})
    assert error.where == ("data", "evaluation", "limit")
    assert "tokens" in error.hint


# Files


def test_line_ends_are_those_of_text_mode(tmp_path: Path) -> None:
    (tmp_path / "dos.txt").write_bytes(b"ab\r\ncd\ref\ngh")
    assert letters(read({"text": str(tmp_path / "dos.txt")})) == ["ab\ncd\nef", "\ngh"]


def test_a_packed_text_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "text.txt.xz").write_bytes(lzma.compress(b"abcdefgh"))
    assert letters(read({"text": str(tmp_path / "text.txt.xz")})) == ["abcdefgh"]
    (tmp_path / "text.txt.xz").write_bytes(b"abcdefgh")
    assert "cannot be read" in refusal({"text": str(tmp_path / "text.txt.xz")}).message


# Datasets


class Rows:
    def __init__(self, **columns: list[str]) -> None:
        self.columns = columns
        self.column_names = list(columns)

    def __getitem__(self, column: str) -> list[str]:
        return self.columns[column]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """A stand-in for the package `datasets`, which is optional; returns what it was asked for."""
    calls: list[tuple[object, ...]] = []

    def load_dataset(name: str, config: str | None, split: str) -> Rows:
        calls.append((name, config, split))
        if split == "none":
            raise ValueError("Unknown split 'none'.\nMore words.")
        return Rows(text=["abcd", "", "efgh", "ijkl", "mnop", "qrst"])

    module = ModuleType("datasets")
    monkeypatch.setattr(module, "load_dataset", load_dataset, raising=False)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def test_rows_of_a_dataset_are_one_stream_with_blank_lines_between(asked: list[tuple[object, ...]]) -> None:
    corpus = read({"dataset": "wikitext", "config": "raw", "split": "test", "limit": 3})
    assert "".join(letters(corpus)) == "abcd\n\n\n\nefgh"
    assert asked == [("wikitext", "raw", "test")]


def test_the_final_rows_of_a_dataset_follow_the_evaluation(asked: list[tuple[object, ...]]) -> None:
    source = {"dataset": "wikitext", "split": "test"}
    assert "".join(letters(read({**source, "limit": 3}, Role.FINAL))) == "ijkl\n\nmnop\n\nqrst"
    assert "".join(letters(read({**source, "tokens": 16}, Role.FINAL))) == "kl\n\nmnop\n\nqrst"


def test_a_dataset_needs_a_split_that_exists_and_a_column(asked: list[tuple[object, ...]]) -> None:
    assert "no split" in refusal({"dataset": "wikitext"}).message
    assert refusal({"dataset": "wikitext", "split": "none"}).message.endswith("Unknown split 'none'.")
    error = refusal({"dataset": "wikitext", "split": "test", "column": "texts"})
    assert "did you mean 'text'" in error.hint


def test_without_the_package_a_dataset_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(Unsupported, match=r"compression-hpo\[data\]"):
        read({"dataset": "wikitext", "split": "test"})


# Bytes


@settings(deadline=None)
@given(st.text(min_size=1))
def test_the_bytes_of_all_tokens_are_those_of_the_text(text: str) -> None:
    found, sizes = encode(text, BYTES)
    assert len(found) == len(sizes)
    assert sizes.sum() == len(text.encode())


def test_a_character_of_several_tokens_counts_at_its_first() -> None:
    assert encode("aé→", BYTES)[1].tolist() == [1, 2, 0, 3, 0, 0]


def test_a_tokenizer_without_offsets_counts_what_each_token_decodes_to() -> None:
    class Plain:
        is_fast = False

        def __call__(self, text: str, **named: object) -> dict[str, list[int]]:
            return {"input_ids": [len(word) for word in text.split()]}

        def decode(self, tokens: list[int]) -> str:
            return "x" * tokens[0]

    found, sizes = encode("one three", Plain())
    assert (found.tolist(), sizes.tolist()) == ([3, 5], [3, 5])


def test_the_start_of_a_long_text_is_encoded_as_in_the_whole() -> None:
    text = reference_text().splits["train"]
    assert encode_start(text, BYTES, 100)[0].tolist() == list(text.encode())[:100]
    assert len(encode_start("abc", BYTES, 100)[0]) == 3


# The value


def test_the_digest_is_of_the_sequences_and_the_protocol(text: str, tmp_path: Path) -> None:
    whole = read({"text": text, "tokens": 8})
    assert whole.digest == read({"text": text, "tokens": 8}, Role.CALIBRATION).digest
    assert whole.digest != read({"text": text}).digest
    assert whole.digest != read({"documents": documents(tmp_path, "abcdefgh")}).digest
    assert len(whole.digest) == 64


def test_sequences_are_cut_differently_by_another_context(text: str) -> None:
    source = TextSource(text=text)
    found = [read_corpus(source, Role.EVALUATION, BYTES, context).digest for context in (8, 4)]
    assert found[0] != found[1]


@pytest.mark.parametrize(
    "sequences", [(), (torch.zeros(1, dtype=torch.int64),), (torch.zeros(2),), (torch.ones(1, 2).long(),)]
)
def test_a_corpus_checks_itself(sequences: tuple[torch.Tensor, ...]) -> None:
    with pytest.raises(ValueError, match="sequence"):
        Corpus(sequences, 1, "")


def test_evaluating_on_the_calibration_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(reference_text().splits["train"][:2000])
    whole, beginning = TextSource(text=str(tmp_path / "long.txt")), {"tokens": 640}
    source = whole.model_copy(update=beginning)
    corpora = [read_corpus(s, Role.EVALUATION, BYTES, 64) for s in (whole, source)]
    for calibration, evaluation in (corpora, corpora[::-1], corpora[:1] * 2):
        with pytest.raises(InvalidStudy, match="fitted") as caught:
            check_disjoint(calibration, evaluation)
        assert caught.value.where == ("data", "evaluation")


def test_the_same_short_text_is_refused_too(text: str) -> None:
    with pytest.raises(InvalidStudy, match="4 of the 4 sequences"):
        check_disjoint(read({"text": text}), read({"text": text}))


def test_a_twentieth_may_be_shared_and_no_more() -> None:
    own = torch.arange(40 * 40).reshape(40, 40)
    others = own + 10_000
    for shared, accepted in ((2, True), (3, False)):
        evaluation = Corpus((*own[:shared], *others[shared:]), 1, "evaluation")
        try:
            check_disjoint(Corpus(tuple(own), 1, "calibration"), evaluation)
        except InvalidStudy:
            assert not accepted
        else:
            assert accepted


def test_the_reference_texts_are_disjoint_at_any_context() -> None:
    source = TextSource(reference=True)
    for context in (8, 128):
        calibration = read_corpus(source, Role.CALIBRATION, BYTES, context)
        check_disjoint(calibration, read_corpus(source, Role.EVALUATION, BYTES, context))
