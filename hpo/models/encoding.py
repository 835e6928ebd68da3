"""Token ids of a text, with the bytes of text that each stands for."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


def encode(text: str, tokenizer: Any) -> tuple[Ids, Ids]:
    """Return the token ids of a text, without special tokens, and the UTF-8 bytes of each, both (T,).

    The bytes add up to those of the text (up to its last token). Where several tokens make one
    character its bytes count at the first of them; text that the tokenizer drops counts at the next.
    """
    fast = bool(tokenizer.is_fast)
    # verbose: no warning that a text is longer than the model's context; it is cut afterwards
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=fast, verbose=False)
    ids = np.array(encoded["input_ids"], dtype=np.int64)
    if not fast:  # a tokenizer in plain Python knows no offsets: what each token decodes to, then
        sizes = [len(tokenizer.decode([token]).encode()) for token in ids.tolist()]
        return ids, np.array(sizes, dtype=np.int64)
    ends = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)[:, 1]
    letters = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    widths = 1 + (letters >= 0x80) + (letters >= 0x800) + (letters >= 0x10000)
    upto = np.concatenate([[0], np.cumsum(widths, dtype=np.int64)])
    return ids, np.diff(upto[np.maximum.accumulate(ends)], prepend=0).astype(np.int64)


def encode_start(text: str, tokenizer: Any, tokens: int | None) -> tuple[Ids, Ids]:
    """Encode a text up to its first `tokens` (None: all), without reading megabytes for hundreds."""
    if tokens is None:
        return encode(text, tokenizer)
    start = text[: 16 * tokens + 4096]
    ids, sizes = encode(start, tokenizer)
    if len(ids) < tokens + 16 and len(start) < len(text):  # the cut may change the last few tokens
        ids, sizes = encode(text, tokenizer)
    return ids[:tokens], sizes[:tokens]
