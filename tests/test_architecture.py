"""Rules of the house as tests. The layers themselves are import-linter's business: see `make lint`."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from hpo import registry
from hpo.cli.main import build
from hpo.store.migrations import MIGRATIONS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("hpo", "dashboards", "search_spaces", "studies", "tests", "benchmarks")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TEXTS = sorted(
    path
    for package in PACKAGES
    for ending in ("yaml", "css")
    for path in (ROOT / package).rglob(f"*.{ending}")
)
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob(".github/*.md"), *ROOT.glob("docs/**/*.md")])
ENTRIES: list[tuple[registry.Kind, str]] = [
    (kind, name) for kind in ("sampler", "method", "probe", "runner") for name in registry._TABLE[kind]
]

LONGEST_MODULE = 400


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _lines(path: Path) -> list[tuple[str, str]]:
    """Every line of a file with its place."""
    return [(f"{_name(path)}:{i}", line) for i, line in enumerate(_text(path).splitlines(), 1)]


# The command line


@cache
def commands() -> dict[str, Any]:
    """Every command by the words that call it; a group is there beside its commands.

    They are typer's own kind, which is click's in some versions of it and a copy of that in others.
    """
    return dict(_walk((), typer.main.get_command(build())))


def _walk(words: tuple[str, ...], command: Any) -> Iterator[tuple[str, Any]]:
    if words:
        yield " ".join(words), command
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from _walk((*words, name), inner)


RUNNABLE = sorted(name for name, command in commands().items() if not isinstance(command, TyperGroup))


def test_the_walk_finds_the_commands() -> None:
    assert {"launch", "resume", "status", "validate", "list"} <= set(RUNNABLE)


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_command_has_help_with_an_example_that_calls_it(name: str) -> None:
    text = inspect.cleandoc(commands()[name].help or "")
    first, _, rest = text.partition("\n")
    assert first.endswith((".", ":", ",")), f"hpo {name} does not say in its first line what it does"
    examples = [line.strip() for line in rest.splitlines() if line.strip().startswith("Example: ")]
    assert examples, f"hpo {name} has no line that begins with 'Example: '"
    assert all(line.startswith(f"Example: hpo {name}") for line in examples)


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_option_and_argument_of_a_command_says_what_it_is(name: str) -> None:
    silent = [p.name for p in commands()[name].params if not getattr(p, "help", None)]
    assert not silent, f"hpo {name}: no help for {silent}"


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_commands_help_can_be_shown(name: str) -> None:
    command = commands()[name]
    assert "Usage:" in command.get_help(typer.Context(command, info_name=f"hpo {name}"))


def _called(text: str) -> Iterator[str]:
    """The words after ``hpo`` in code: inline, or at the start of a line in a block."""
    blocks = re.findall(r"^(?:```|~~~).*?^(?:```|~~~)", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^(?: {4}|\t).*$", text, re.MULTILINE)
    for block in [*blocks, *indented]:
        yield from re.findall(r"^\s*(?:\$ )?(?:HPO_\w+=\S+ )*hpo ([a-z][\w -]*)", block, re.MULTILINE)
    yield from re.findall(r"`hpo ([a-z][\w -]*)", text)


def _unknown(called: str) -> str:
    """Return the command that is called if there is none of that name, else nothing."""
    first, _, rest = called.partition(" ")
    found = commands().get(first)
    if isinstance(found, TyperGroup) and rest and not rest.startswith("-"):
        first = f"{first} {rest.split()[0]}"
        found = commands().get(first)
    return "" if found else first


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_every_command_that_a_document_names_exists(path: Path) -> None:
    unknown = sorted(set(filter(None, map(_unknown, _called(_text(path))))))
    assert not unknown, f"{_name(path)} names commands that do not exist: {unknown}"


def test_the_rule_about_documents_sees_commands_wherever_they_stand() -> None:
    text = (
        "Run `hpo frnt x`, then\n```bash\n$ hpo lanch y\nHPO_STORAGE=a.db hpo plam z\n```\n\n    hpo stauts\n"
    )
    assert sorted(map(_unknown, _called(text))) == ["frnt", "lanch", "plam", "stauts"]
    assert [
        _unknown(called) for called in _called("`hpo launch quickstart --trials 3` and the hpo package")
    ] == [""]


# Imports


def _loaded_by(code: str, *modules: str) -> list[str]:
    """Run code in a process of its own; return which of `modules` are loaded after it."""
    end = f"\nimport sys\nprint('LOADED', *[m for m in {modules!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code + end],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("LOADED")[2].split()


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("hpo", ("torch", "ray", "dash", "pydantic", "numpy", "sqlalchemy")),
        ("hpo.study_file", ("torch", "ray", "dash", "sqlalchemy", "transformers")),
        ("hpo.cli.main", ("torch", "ray", "dash", "sqlalchemy", "transformers", "optuna", "plotly")),
        ("hpo.store.store", ("torch", "ray", "dash", "transformers")),
        ("hpo.run.in_process", ("ray", "dash")),
        ("hpo.run.coordinator", ("ray", "dash")),
        ("hpo.run.launch", ("ray", "dash")),
    ],
)
def test_importing_a_module_loads_nothing_heavy_that_it_can_do_without(
    module: str, heavy: tuple[str, ...]
) -> None:
    assert _loaded_by(f"import {module}", *heavy) == []


_WITHOUT_RAY = """
import sys
from importlib.abc import MetaPathFinder

class NoRay(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "ray" or name.startswith("ray."):
            raise ImportError("ray is not here")

sys.meta_path.insert(0, NoRay())
try:
    import ray
except ImportError:
    pass
else:
    raise SystemExit("ray could be imported after all")

from hpo import registry
from hpo.metric import Source
from hpo.run.bench import BenchSpec, Setup
from hpo.run.job import FIRST_STAGE, Job, StageResult
from hpo.space import Candidate
from hpo.study import Run
from hpo.trial import Measurement

class Bench:
    def __init__(self, document):
        self.document = document
    def setup(self):
        return SETUP
    def run(self, job, stage):
        return StageResult(stage, 1.0, "", (Measurement("nll", 2.0, "nats", Source.MEASURED),))
    def forget(self):
        pass
    def preempt(self):
        pass

SETUP = object()
sys.modules["a_bench"] = type(sys)("a_bench")
sys.modules["a_bench"].Bench = Bench
runner = registry.load("runner", "in_process")(BenchSpec("a_bench:Bench", {}), Run(runner="in_process"), None)
assert runner.start() is SETUP
job = Job(0, 1, Candidate(), "dense")
runner.submit(job, FIRST_STAGE)
(report,) = runner.wait(0.0)
assert report.result.measurements[0].value == 2.0
runner.release(job)
runner.close()
"""


def test_the_in_process_runner_works_where_ray_cannot_be_imported() -> None:
    assert _loaded_by(_WITHOUT_RAY, "ray") == []


# Modules and tables


def test_no_module_is_so_long_that_a_noun_moved_in_uninvited() -> None:
    lengths = {_name(path): len(_text(path).splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_every_module_but_tests_says_what_it_is() -> None:
    modules = [path for path in SOURCES if path.relative_to(ROOT).parts[0] != "tests"]
    assert [_name(path) for path in modules if not ast.get_docstring(ast.parse(_text(path)))] == []


def test_no_module_is_a_drawer_for_everything() -> None:
    drawers = {"utils", "util", "helpers", "common", "misc", "base"}
    assert [_name(path) for path in SOURCES if path.stem in drawers] == []


# Put together so that this file does not find itself.
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b")


def test_nothing_is_left_for_later() -> None:
    files = [*SOURCES, *TEXTS, *DOCUMENTS]
    assert [place for path in files for place, line in _lines(path) if UNFINISHED.search(line)] == []


SILENCED = re.compile("# (?:type: " + "ignore|no" + "qa)")
CODES = r"# (?:type: " + r"ignore\[[\w, -]+\]|no" + r"qa: [A-Z]+[0-9]+(?:, [A-Z]+[0-9]+)*)"
WITH_REASON = re.compile(CODES + r"\s+\S")


def test_every_silenced_rule_is_named_and_has_its_reason_beside_or_above_it() -> None:
    unexplained = [
        place
        for path in SOURCES
        for (_, above), (place, line) in pairwise([("", ""), *_lines(path)])
        if SILENCED.search(line) and not WITH_REASON.search(line) and not above.lstrip().startswith("#")
    ]
    assert unexplained == []


def test_migrations_are_numbered_from_one_without_a_gap_and_named_apart() -> None:
    assert [step.number for step in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))
    assert len({step.name for step in MIGRATIONS}) == len(MIGRATIONS)


@pytest.mark.parametrize(("kind", "name"), ENTRIES, ids=[f"{kind}-{name}" for kind, name in ENTRIES])
# A dependency of BoTorch scripts functions when it is imported, which torch says it will drop.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_every_entry_of_the_registry_can_be_imported_and_says_what_it_is(
    kind: registry.Kind, name: str
) -> None:
    loaded = registry.load(kind, name)
    assert inspect.isclass(loaded)
    assert loaded.__doc__, f"the {kind} {name} has no docstring"
    assert not loaded.__doc__.startswith(f"{loaded.__name__}("), (
        f"the {kind} {name} has a generated docstring"
    )
