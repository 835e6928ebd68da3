"""Read study and search-space files: YAML in, a `Study` out, or an error that names the line.

YAML is always read with safe loaders. A space may be written inline, named (a shipped one) or given
as a path; an error in it names the space's own file.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from hpo.errors import InvalidStudy, NotFound, UsageError, did_you_mean
from hpo.errors import Path as Where
from hpo.study import Study

_SHIPPED = {"study": "studies", "space": "search_spaces"}

LONGEST_FILE = 2**20
"""Bytes of a study file: far more than anybody writes by hand, and read within seconds."""


@dataclass(frozen=True)
class Document:
    """A YAML file: its values, and the line of every key."""

    name: str
    """Path as the user knows it."""
    data: dict[str, Any]
    lines: Mapping[Where, int]

    def line(self, where: Where) -> int:
        """Return the line of a path, or of its nearest parent that is in the file."""
        for end in range(len(where), -1, -1):
            if where[:end] in self.lines:
                return self.lines[where[:end]]
        return 1


def read_study(reference: str, overrides: Sequence[str] = (), name: str | None = None) -> Study:
    """Read a study from a path or by the name of a shipped one, with ``key=value`` overrides.

    An override may reach into lists (``objectives.0.limit=3``) and into a named space.

    Raises:
        NotFound: there is no such file or shipped study.
        InvalidStudy: the document is wrong; the message begins with file and line.
        UsageError: an override is wrong; the message begins with it.
    """
    document = parse(*_find("study", reference))
    source = document
    given: dict[Where, str] = {}
    for override in overrides:
        if override.startswith("space."):
            source = _with_space(document, given) or source
        path = _apply(document.data, override)
        given[path] = "--set"
        source = document if path == ("space",) else source
    if name is not None:
        document.data["name"] = name
        given[("name",)] = "--name"
    document.data.setdefault("name", Path(reference).stem)
    source = _with_space(document, given) or source
    try:
        return Study.from_mapping(document.data)
    except InvalidStudy as error:
        raise _blamed(error, document, source, given) from None


def changed(study: Study, overrides: Sequence[str]) -> Study:
    """Return a study with ``key=value`` overrides, as `read_study` takes them.

    Raises:
        InvalidStudy: the changed document is wrong.
        UsageError: an override is wrong; the message begins with it.
    """
    document = Document(f"study {study.name}", study.to_mapping(), {})
    given: dict[Where, str] = {_apply(document.data, override): "--set" for override in overrides}
    source = _with_space(document, given) or document
    try:
        return Study.from_mapping(document.data)
    except InvalidStudy as error:
        raise _blamed(error, document, source, given) from None


def _with_space(document: Document, given: Mapping[Where, str]) -> Document | None:
    """Write a space that is named into the document; return its own, None where it is inline."""
    space = document.data.get("space")
    if not isinstance(space, str):
        return None
    try:
        source = parse(*_find("space", space, Path(document.name).parent))
    except NotFound as error:
        wrong = InvalidStudy(error.message, error.hint, ("space",))
        raise _blamed(wrong, document, document, given) from None
    _check_space_file(source)
    document.data["space"] = source.data["parameters"]
    return source


def _blamed(
    error: InvalidStudy, document: Document, source: Document, given: Mapping[Where, str]
) -> UsageError:
    """Return the error with the place that is to blame before it: an option, or a file and line."""
    for path, option in given.items():
        if _overlap(path, error.where):
            key = f" {'.'.join(map(str, error.where))}" if option == "--set" else ""
            return UsageError(f"{option}{key}: {error.message}", error.hint)
    if source is not document and error.where[:1] == ("space",):
        return _in_space_file(error, source)
    return located(error, document)


def _overlap(one: Where, other: Where) -> bool:
    shorter = min(len(one), len(other))
    return shorter > 0 and one[:shorter] == other[:shorter]


def locate(error: InvalidStudy, reference: str) -> InvalidStudy:
    """Return an error found after reading, with the file and line of the study it is about."""
    document = parse(*_find("study", reference))
    space = document.data.get("space")
    if isinstance(space, str) and error.where[:1] == ("space",):
        return _in_space_file(error, parse(*_find("space", space, Path(document.name).parent)))
    return located(error, document)


def located(error: InvalidStudy, document: Document) -> InvalidStudy:
    """Return the error with file and line before its message."""
    place = f"{document.name}:{document.line(error.where)}"
    key = ".".join(map(str, error.where))
    message = error.message if not key or key in error.message else f"{key}: {error.message}"
    return InvalidStudy(_on_one_line(f"{place}: {message}"), _on_one_line(error.hint), error.where)


def _on_one_line(text: str) -> str:
    """Return a message without line breaks and control characters, which a key that it quotes may have."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _in_space_file(error: InvalidStudy, source: Document) -> InvalidStudy:
    return located(InvalidStudy(error.message, error.hint, ("parameters", *error.where[1:])), source)


def _check_space_file(source: Document) -> None:
    allowed = ("version", "question", "parameters")
    for key in map(str, source.data):
        if key not in allowed:
            error = InvalidStudy(f"unknown key {key!r}", did_you_mean(key, allowed), (key,))
            raise located(error, source)
    if source.data.get("version") != 1:
        raise located(InvalidStudy("a search space needs version: 1", "add it", ("version",)), source)
    if "parameters" not in source.data:
        raise located(InvalidStudy("the key 'parameters' is missing", "add it"), source)


def shipped(kind: str) -> tuple[str, ...]:
    """Return the names of the shipped studies or spaces (`kind`: ``study`` or ``space``)."""
    folder = files(_SHIPPED[kind])
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def _find(kind: str, reference: str, beside: Path | None = None) -> tuple[str, str]:
    """Return the name and text of a file given by path, or shipped under a name."""
    for path in (Path(reference), *([beside / reference] if beside else [])):
        if _is_file(path):
            return str(path), _text(path)
    if Path(reference).suffix in (".yaml", ".yml"):
        raise NotFound(f"there is no file {reference!r}", "give a path, or the name of a shipped one")
    if reference not in shipped(kind):
        raise NotFound(
            f"there is no {kind} {reference!r}",
            did_you_mean(reference, shipped(kind)) + ", or a path to a .yaml file",
        )
    name = f"{_SHIPPED[kind]}/{reference}.yaml"
    return name, files(_SHIPPED[kind]).joinpath(f"{reference}.yaml").read_text(encoding="utf-8")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # a name too long, a directory that must not be entered
        raise NotFound(f"{str(path)!r} cannot be opened: {error.strerror}", "give another path") from None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LONGEST_FILE:
            raise UsageError(
                f"{path} is longer than a study file may be ({LONGEST_FILE:,} bytes)",
                "name a study file; texts and models are named in it, not written into it",
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "it must be a UTF-8 text file") from None


class _Loader(yaml.SafeLoader):
    """Safe, and with two faults of YAML 1.1 as PyYAML reads it put right.

    ``1e-3`` is a number, not a word; a value that cannot be built has a line like every other error.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            found = super().construct_object(node, deep)
            if isinstance(found, int) and abs(found) > _LARGEST:
                raise OverflowError
            return found
        except _UNBUILDABLE as error:
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value!r:.80} is no {node.tag.rpartition(':')[2]}", node.start_mark
            ) from error


_LARGEST = 2**63 - 1
"""Of a whole number: more fits no database, and Python itself will not write much longer ones."""

_UNBUILDABLE = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError)
"""What PyYAML's constructors raise over a date like 2026-99-99 or a tag like ``!!bool x``."""

_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+\Z"), list("-+0123456789")
)


def parse(name: str, text: str) -> Document:
    """Parse YAML and note the line of every key.

    Raises:
        InvalidStudy: no YAML, not a mapping, or a key that stands twice.
    """
    lines: dict[Where, int] = {(): 1}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            _check_size(name, _values(node, {}))
        _note_lines(name, node, (), lines, set())
        data = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = (getattr(error, "problem", None) or str(error)).splitlines()[0]
        raise InvalidStudy(
            f"{name}:{line}: this is no YAML: {problem}", "check indentation and quotes"
        ) from None
    except RecursionError:
        raise InvalidStudy(f"{name}:1: this is nested too deeply", "check brackets and indentation") from None
    if not isinstance(data, dict):
        raise InvalidStudy(f"{name}:1: the file is {_kind(data)}", "it must be a mapping of keys to values")
    return Document(name, data, lines)


_MOST_VALUES = 100_000


def _check_size(name: str, values: float) -> None:
    if values > _MOST_VALUES:
        much = f"more than {_MOST_VALUES:,} values" if values < math.inf else "what it stands in"
        raise InvalidStudy(
            f"{name}:1: an alias in this file stands for {much}", "write out what is meant, or repeat less"
        )


def _values(node: yaml.Node, known: dict[int, float]) -> float:
    """Return for how many values a node stands: a few lines of aliases of aliases for billions, which
    whoever copies or prints them would find out too late; infinitely many where it holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        items = (
            node.value if isinstance(node, yaml.SequenceNode) else [part for pair in pairs for part in pair]
        )
        known[id(node)] = 1.0 + sum(_values(item, known) for item in items)
    return known[id(node)]


def _kind(data: object) -> str:
    return "empty" if data is None else f"a {type(data).__name__}"


def _note_lines(
    name: str, node: yaml.Node | None, where: Where, lines: dict[Where, int], seen: set[int]
) -> None:
    """Note the line of every key; what an alias repeats has the lines of its first place only."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*where, str(key.value))
            line = key.start_mark.line + 1
            if place in lines:
                raise InvalidStudy(
                    f"{name}:{line}: the key {key.value!r} stands twice",
                    f"first on line {lines[place]}",
                    place,
                )
            lines[place] = line
            _note_lines(name, value, place, lines, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*where, index)] = value.start_mark.line + 1
            _note_lines(name, value, (*where, index), lines, seen)


_SHORTHAND = {"model": "source", "objectives": "metric"}
"""Where a bare word may stand for a mapping: the key of that word."""


def _apply(data: dict[str, Any], override: str) -> Where:
    """Set ``a.b=value`` in a document; the value is read as YAML. Returns the path that was set."""
    key, equals, text = override.partition("=")
    keys = key.split(".")
    if not equals or not all(keys):
        raise UsageError(f"--set {override!r}", "write it as key=value, e.g. --set budget.trials=50")
    place: Any = data
    where: Where = ()
    while True:
        step, keys = _step(place, keys, override)
        where = (*where, step)
        if not keys:
            place[step] = _value(override, text)
            return where
        place = _entered(place, step, where)


def _step(place: Any, keys: list[str], override: str) -> tuple[str | int, list[str]]:
    """Split off the next key or position; the longest key there is, as names of parameters have dots."""
    if isinstance(place, list):
        if not keys[0].isdecimal() or int(keys[0]) >= len(place):
            raise UsageError(
                f"--set {override!r}: {keys[0]!r} is no position in a list of {len(place)}",
                "the first is 0; a new one needs the whole list",
            )
        return int(keys[0]), keys[1:]
    for end in range(len(keys), 1, -1):
        if ".".join(keys[:end]) in place:
            return ".".join(keys[:end]), keys[end:]
    return keys[0], keys[1:]


def _entered(place: Any, step: Any, where: Where) -> Any:
    """Return the mapping or list at `step`; what is neither makes room for a mapping."""
    inner = place[step] if isinstance(place, list) else place.get(step)
    if not isinstance(inner, dict | list):
        key = _SHORTHAND.get(str(where[0]))
        inner = {key: inner} if key and isinstance(inner, str) and len(where) <= 2 else {}
        place[step] = inner
    return inner


def _value(override: str, text: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (a safe loader)
    except (yaml.YAMLError, RecursionError):
        raise UsageError(f"--set {override!r}", "the value is no YAML") from None


def question(kind: str, name: str) -> str:
    """Return the question that a shipped study or space asks."""
    return " ".join(str(parse(*_find(kind, name)).data.get("question", "")).split())
