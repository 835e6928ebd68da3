"""Text as a model reads it: token ids, cut into sequences by one of two protocols.

*Stream* (`text`, `dataset`, `reference`): one run of tokens without special tokens, cut into windows
of the context; a shorter last window is kept. Rows of a dataset are joined by a blank line, as the
published perplexities of WikiText-2 have it. *Documents*: each text alone, after the beginning-of-
sequence token where the tokenizer has one, cut to the context. Either way every token is in one
sequence only, and the first of a sequence is read but not predicted.

The text for the final judgement is never the one the search saw: the reference text has a part for
it; elsewhere it is the stretch that follows what `tokens` or `limit` took for the evaluation.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch

from hpo.errors import InvalidStudy, Path
from hpo.models.encoding import Ids, encode, encode_start
from hpo.models.reference_text import reference_text
from hpo.models.text_files import read_dataset, read_documents, read_text
from hpo.study import TextSource

REFERENCE_TOKENS = 65_536
"""How much of the reference text judges a model, unless `tokens` says otherwise: keeps a trial short."""
_MAX_SHARED = 0.05
"""Share of the evaluation that may also be in the calibration text; real collections repeat a little."""
_TELLING = 32
"""Tokens from which on two equal sequences are hardly a coincidence."""


class Role(StrEnum):
    """What a text is for."""

    CALIBRATION = "calibration"
    """Gram matrices, healing."""
    EVALUATION = "evaluation"
    """Judging candidates during the search."""
    FINAL = "final"
    """Judging the front once more, on text that the search never saw."""


@dataclass(frozen=True)
class Corpus:
    """Token sequences, ready for a model.

    Raises:
        ValueError: there is no sequence, or one is not a row of at least 2 int64 ids.
    """

    sequences: tuple[torch.Tensor, ...]
    """Each of shape (T,), 2 <= T <= context, int64, on the CPU."""
    bytes: int
    """UTF-8 bytes of the predicted text. A character that is cut into tokens counts at its first."""
    digest: str
    """SHA-256 of the protocol and the sequences."""

    def __post_init__(self) -> None:
        if not self.sequences:
            raise ValueError("a corpus needs at least one sequence")
        for sequence in self.sequences:
            if sequence.ndim != 1 or len(sequence) < 2 or sequence.dtype != torch.int64:
                shape = tuple(sequence.shape)
                raise ValueError(f"a sequence is {shape} of {sequence.dtype}, not (2 or more,) of int64")

    @property
    def tokens(self) -> int:
        return sum(len(sequence) for sequence in self.sequences)

    @property
    def predicted(self) -> int:
        """Tokens that are predicted: all but the first of each sequence."""
        return self.tokens - len(self.sequences)


def read_corpus(
    source: TextSource, role: Role, tokenizer: Any, context: int, where: Path | None = None
) -> Corpus:
    """Read a text of a study and cut it for a model that reads `context` tokens at once.

    Args:
        where: path of `source` in the study, for messages; by default ``data.<role>``.

    Raises:
        InvalidStudy: a file is missing or not what it should be, or there is too little text.
        Unsupported: the text is a dataset and the package `datasets` is missing, or it is the
            reference text and this Python has none.
    """
    part = Role.CALIBRATION if role is Role.CALIBRATION else Role.EVALUATION
    cut = _Cut(source, role, tokenizer, context, where or ("data", part.value))
    if source.documents is not None:
        return cut.documents(read_documents(source.documents, source.column, cut.where))
    if source.limit is not None and source.dataset is None:
        raise cut.wrong("limit counts documents, and this is one stream", "give tokens instead", "limit")
    if source.dataset is not None:
        return cut.rows(read_dataset(source, cut.where))
    if source.text is not None:
        text = read_text(source.text, (*cut.where, "text"))
        return cut.stream(text, source.tokens, cut.seen(source.tokens))
    tokens = source.tokens or (None if role is Role.CALIBRATION else REFERENCE_TOKENS)
    return cut.stream(reference_text().splits[role.value], tokens, 0)


def check_disjoint(calibration: Corpus, evaluation: Corpus) -> None:
    """Refuse to judge a model on the text it was fitted to.

    Raises:
        InvalidStudy: the texts are the same, or more than a twentieth of the evaluation's sequences
            are sequences of the calibration too (counting those of 32 tokens and more).
    """
    known = {_content(sequence) for sequence in calibration.sequences}
    telling = [sequence for sequence in evaluation.sequences if len(sequence) >= _TELLING]
    shared = sum(_content(sequence) in known for sequence in telling)
    same = calibration.digest == evaluation.digest
    if same or shared > _MAX_SHARED * len(evaluation.sequences):
        total = len(evaluation.sequences)
        raise InvalidStudy(
            f"{total if same else shared} of the {total} sequences of the evaluation text are in the "
            "calibration text too; a model must not be judged on what it was fitted to",
            "name different texts, or different splits of one dataset",
            ("data", "evaluation"),
        )


@dataclass(frozen=True)
class _Cut:
    """Cuts the text of one source for one role."""

    source: TextSource
    role: Role
    tokenizer: Any
    context: int
    where: Path

    def wrong(self, message: str, hint: str, key: str = "") -> InvalidStudy:
        where = (*self.where, key) if key else self.where
        return InvalidStudy(f"{'.'.join(map(str, where))}: {message}", hint, where)

    def stream(self, text: str, tokens: int | None, after: int) -> Corpus:
        """Cut windows out of `tokens` tokens (None: all) that follow the first `after`."""
        ids, sizes = encode_start(text, self.tokenizer, after + tokens if tokens else None)
        ids, sizes = ids[after:], sizes[after:]
        if len(ids) < self.context:
            left = " left for the final judgement" if self.role is Role.FINAL else ""
            raise self.wrong(
                f"the text has {len(ids)} tokens{left}, and one window has {self.context}",
                "give more text, let tokens or limit take another amount of it, or set data.context lower",
            )
        starts = range(0, len(ids) - 1, self.context)  # a last window of one token predicts nothing
        pieces = [slice(start, start + self.context) for start in starts]
        predicted = sum(int(sizes[piece][1:].sum()) for piece in pieces)
        return _corpus("stream", [ids[piece] for piece in pieces], predicted)

    def rows(self, rows: Sequence[str]) -> Corpus:
        """Cut rows as one stream; `limit` counts rows, `tokens` tokens (of those rows, given both)."""
        limit = self.source.limit
        if limit is None:
            return self.stream("\n\n".join(rows), self.source.tokens, self.seen(self.source.tokens))
        start = self.seen(limit)
        return self.stream("\n\n".join(rows[start : start + limit]), self.source.tokens, 0)

    def documents(self, texts: Sequence[str]) -> Corpus:
        """Cut each text alone. One too short for two tokens has nothing to predict and is left out."""
        start = 0
        if self.seen(self.source.limit or self.source.tokens):
            start = 1 + max((position for position, _, _ in self._pieces(texts, 0)), default=-1)
        pieces = list(self._pieces(texts, start))
        if not pieces:
            left = " left for the final judgement" if start else ""
            raise self.wrong(f"there is no document of 2 tokens or more{left}", "give more documents")
        predicted = sum(size for _, _, size in pieces)
        return _corpus("documents", [ids for _, ids, _ in pieces], predicted)

    def seen(self, count: int | None) -> int:
        """Return how many tokens or documents come before the text of this role.

        Raises:
            InvalidStudy: the evaluation takes all there is and none is left for the final judgement.
        """
        if self.role is not Role.FINAL:
            return 0
        if count is None:
            raise self.wrong(
                "the search is judged by the whole text, so none is left for the final judgement",
                "set tokens (or limit, for documents) so that there is more text than the search uses",
            )
        return count

    def _pieces(self, texts: Sequence[str], start: int) -> Iterator[tuple[int, Ids, int]]:
        """Yield position, ids and predicted bytes of the documents from `start` that the study asks for."""
        limit, bos = self.source.limit, self.tokenizer.bos_token_id
        room = self.source.tokens
        for position in range(start, len(texts) if limit is None else min(start + limit, len(texts))):
            ids, sizes = encode(texts[position], self.tokenizer)
            if bos is not None:
                ids, sizes = np.insert(ids, 0, bos), np.insert(sizes, 0, 0)
            length = min(len(ids), self.context, len(ids) if room is None else room)
            if length >= 2:
                yield position, ids[:length], int(sizes[1:length].sum())
            room = None if room is None else room - length
            if room is not None and room < 2:
                return


def _corpus(protocol: str, sequences: Sequence[Ids], predicted_bytes: int) -> Corpus:
    digest = hashlib.sha256(protocol.encode())
    for ids in sequences:
        digest.update(f" {len(ids)} ".encode() + ids.astype("<i8").tobytes())
    tensors = tuple(torch.from_numpy(ids.copy()) for ids in sequences)
    return Corpus(tensors, predicted_bytes, digest.hexdigest())


def _content(sequence: torch.Tensor) -> bytes:
    return sequence.numpy().tobytes()
