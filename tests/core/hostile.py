"""Study files as a careless or hostile hand might write them: valid ones, bent in every way YAML allows."""

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import yaml
from hypothesis import strategies as st

from hpo.study_file import shipped
from tests.core.documents import DOCUMENT

TEXTS = tuple(
    files("studies").joinpath(f"{name}.yaml").read_text(encoding="utf-8") for name in shipped("study")
)
SEEDS: tuple[dict[str, Any], ...] = (DOCUMENT, *(yaml.safe_load(text) for text in TEXTS))

ODD_WORDS = st.sampled_from(
    [
        *("", " ", "\t", "\x00", "a\x00b", "\x1b[2J", "..", "../../etc/passwd", "/dev/null", "~", "~nobody"),
        *("null", "true", "nan", "inf", "1e999", "0x1F", "1_000", "\u202eabc", "\U0001f600", "é" * 200, "/"),
        *("x" * 5000, "a.b.c", "${HOME}", "{{7*7}}", "__import__('os')", "file:///etc/passwd", "%s%n"),
        *("reference", "low_rank", "perplexity", "bayesian", "in_process", "ray", "float", "choice"),
    ]
)
_INTEGERS = (0, -1, 1, 2**31, 2**63, 2**64, 10**40, 10**400, -(10**400), True, False)
_FLOATS = (0.0, -0.0, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"))
NUMBERS = st.sampled_from([*_INTEGERS, *_FLOATS])
SCALARS = (
    st.none()
    | NUMBERS
    | ODD_WORDS
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.dates()
    | st.binary(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | ODD_WORDS | st.integers(), inner, max_size=4)
    ),
    max_leaves=8,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in _places(child, (*path, key)))]


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(child) for key, child in value.items()}
    return [_copied(child) for child in value] if isinstance(value, list) else value


@st.composite
def documents(draw: st.DrawFn) -> Any:
    """Return a valid document with one to three values replaced, lost, added, wrapped or moved."""
    document = _copied(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 3))):
        paths = _places(document)
        path = draw(st.sampled_from(paths))
        if not path:
            continue
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        kind = draw(st.sampled_from(["replace", "replace", "lose", "add", "wrap", "move", "rename"]))
        if kind == "replace":
            holder[path[-1]] = draw(VALUES)
        elif kind == "lose":
            del holder[path[-1]]
        elif kind == "add" and isinstance(holder, dict):
            holder[draw(ODD_WORDS | st.integers())] = draw(VALUES)
        elif kind == "wrap":
            holder[path[-1]] = draw(st.sampled_from([[holder[path[-1]]], {"value": holder[path[-1]]}]))
        elif kind == "rename" and isinstance(holder, dict):
            holder[f"{path[-1]}{draw(st.sampled_from(['s', '_', '.x', ' ']))}"] = holder.pop(path[-1])
        elif kind == "move":
            holder[path[-1]] = _copied(draw(st.sampled_from(SEEDS)))
    return document


def _dumped(document: Any, flow: bool) -> str:
    return str(yaml.safe_dump(document, sort_keys=False, default_flow_style=flow, allow_unicode=True))


def _bomb(text: str, levels: int, width: int) -> str:
    """Aliases of aliases: a few lines that are width ** levels values."""
    lines = ["a0: &a0 [x, x]"] + [
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)
    ]
    return "\n".join(lines) + "\n" + text


def _merges(text: str, levels: int, width: int) -> str:
    """The same with merge keys, which a loader may copy out."""
    lines = ["m0: &m0 {x: 1, y: 2}"]
    lines += [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * width)}]}}" for n in range(1, levels)]
    return "\n".join(lines) + "\n" + text


BENT: tuple[Callable[[str], str], ...] = (
    lambda text: text.replace("  ", "\t"),
    lambda text: text + text,
    lambda text: text + "\nversion: 1\n",
    lambda text: _bomb(text, 9, 9),
    lambda text: _bomb(text, 30, 9).replace("name: ", "name: *a29 #"),
    lambda text: text.replace("space:", "space: &s").replace("budget:", "budget: *s #"),
    lambda text: _merges(text, 8, 8),
    lambda text: "&r " + text,
    lambda text: "run: &r {lanes: *r}\n" + text,
    lambda text: "budget: &b [*b]\n",
    lambda text: text.replace(":", ": !!python/object/apply:os.system ['true'] #", 2),
    lambda text: text.replace("name:", "name: !!binary", 1),
    lambda text: "%YAML 9.9\n---\n" + text,
    lambda text: "---\n" + text + "\n---\n" + text,
    lambda text: "\ufeff" + text,
    lambda text: text.replace("\n", "\r\n"),
    lambda text: text.replace("\n", "\u2028"),
    lambda text: text + "\x00",
    lambda text: text + "question: " + "[" * 2000,
    lambda text: text + "x: " + "[" * 300 + "]" * 300,
    lambda text: text + "x: " + "{a: " * 300 + "}" * 300,
    lambda text: text + "x: " + "- " * 900,
    lambda text: text.replace("trials:", "trials: " + "9" * 6000 + " #"),
    lambda text: text.replace("trials:", "trials: 0x" + "f" * 6000 + " #"),
    lambda text: text.replace("trials:", "trials: " + ":".join(["59"] * 400) + " #"),
    lambda text: text.replace("trials:", "trials: 2026-13-45 #"),
    lambda text: text.replace("trials:", "trials: [1] #"),
    lambda text: "? [a, b]\n: 1\n" + text,
    lambda text: "? {a: b}\n: 1\n" + text,
    lambda text: "null: 1\n~: 2\n1: 3\n1.5: 4\n" + text,
    lambda text: "=: 1\n<<: {version: 1}\n" + text,
    lambda text: text[: len(text) // 2],
    lambda text: "",
    lambda text: "# nothing\n",
    lambda text: "just words\n",
    lambda text: "- a\n- list\n",
)  # fmt: skip
"""What can be done to the text of a file."""


@st.composite
def study_files(draw: st.DrawFn) -> bytes:
    """Return the bytes of a file: mostly a bent document, often a bent text, sometimes no text at all."""
    kind = draw(st.sampled_from(["document", "document", "document", "text", "both", "bytes"]))
    plain = st.sampled_from(TEXTS)
    text = draw(plain) if kind == "text" else _dumped(draw(documents()), draw(st.booleans()))
    if kind in ("text", "both"):
        text = draw(st.sampled_from(BENT))(text)
    written = text.encode("utf-8", "surrogatepass")
    if kind != "bytes":
        return written
    place = draw(st.integers(0, len(written)))
    return (
        written[:place] + draw(st.binary(min_size=1, max_size=6)) + written[place + draw(st.integers(0, 3)) :]
    )
