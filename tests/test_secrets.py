"""Rules about danger, kept by walking the sources: no pickles, no code out of data, no open door."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.cli.main import _refuse_passwords
from hpo.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = [
    path for room in ("hpo", "dashboards", "search_spaces", "studies") for path in (ROOT / room).rglob("*.py")
]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _dotted(node: ast.expr) -> str:
    """Return the dotted name that is called, as far as it is written out."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield _dotted(node.func), node


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is(call: str, *names: str) -> bool:
    return call in names or any(call.endswith(f".{name}") for name in names if "." in name)


def _true(call: ast.Call, keyword: str) -> bool:
    return any(
        k.arg == keyword and isinstance(k.value, ast.Constant) and k.value.value is True
        for k in call.keywords
    )


FORBIDDEN_IMPORTS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = (
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.load",
    "torch.save",
    "np.load",
    "numpy.load",
    "os.system",
    "os.popen",
)


def test_nothing_is_pickled_and_no_data_is_run_as_code() -> None:
    found = [
        f"{_name(p)}: import {name}"
        for p in PRODUCT
        for name in _imports(p)
        if name.split(".")[0] in FORBIDDEN_IMPORTS
    ]
    found += [
        f"{_name(p)}:{call.lineno}: {name}"
        for p in PRODUCT
        for name, call in _calls(p)
        if name in FORBIDDEN_CALLS
    ]
    assert found == []


def test_no_shell_ever_sees_a_command() -> None:
    shells = [f"{_name(p)}:{call.lineno}" for p in PRODUCT for _, call in _calls(p) if _true(call, "shell")]
    assert shells == []


def test_yaml_is_read_by_safe_loaders_only() -> None:
    """`yaml.load` may be called with our own subclass of the safe loader, in the module that defines it."""
    unsafe = []
    for path in PRODUCT:
        for name, call in _calls(path):
            loader = _dotted(call.args[1]) if len(call.args) > 1 else ""
            ours = _name(path) == "hpo/study_file.py" and loader == "_Loader"
            if name.startswith("yaml.") and "load" in name and name != "yaml.safe_load" and not ours:
                unsafe.append(f"{_name(path)}:{call.lineno}: {name}")
    assert unsafe == []


def test_every_model_is_loaded_from_safetensors_with_trust_said_aloud() -> None:
    loads = [
        (f"{_name(path)}:{call.lineno}", name, call)
        for path in PRODUCT
        for name, call in _calls(path)
        if name.endswith("from_pretrained") and name.startswith("Auto")
    ]
    assert len(loads) >= 5
    for place, name, call in loads:
        assert any(k.arg == "trust_remote_code" for k in call.keywords), (
            f"{place}: {name} leaves trust to others"
        )
        if name.startswith("AutoModel"):
            assert _true(call, "use_safetensors"), f"{place}: {name} may read a pickle"


def _literals(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_nothing_listens_on_every_address_unless_a_person_says_so() -> None:
    """The dashboard compares with it, to print a name that can be opened; nothing else may know it."""
    allowed = {"dashboards/serve.py"}
    found = [
        f"{_name(path)}:{line}"
        for path in PRODUCT
        for line, text in _literals(path)
        if ("0.0.0.0" in text or text in ("::", "[::]")) and _name(path) not in allowed
    ]
    assert found == []


def test_every_server_we_start_is_bound_by_name() -> None:
    """Whoever makes a server socket gives it a host: the default of most is every address."""
    for path in PRODUCT:
        for name, call in _calls(path):
            if name.endswith(("start_http_server", "make_server", "create_server", "waitress.serve")):
                given = {k.arg for k in call.keywords} | ({"host"} if len(call.args) > 1 else set())
                assert given & {"host", "addr", "sockets", "listen"}, f"{_name(path)}:{call.lineno}: {name}"


def test_sql_is_written_by_sqlalchemy_or_has_no_value_in_it() -> None:
    """Text handed to a database is a literal, or built of our own: never of what came from outside."""
    built = []
    for path in PRODUCT:
        for name, call in _calls(path):
            if (
                name.split(".")[-1] not in ("execute", "exec_driver_sql", "text", "executescript")
                or not call.args
            ):
                continue
            if isinstance(call.args[0], ast.JoinedStr | ast.BinOp) and _name(path).startswith("hpo/store"):
                built.append(f"{_name(path)}:{call.lineno}")
    # A PRAGMA takes no parameter; a migration puts the names of its own columns together.
    allowed = {"hpo/store/database.py", "hpo/store/migrations.py"}
    assert [place for place in built if place.partition(":")[0] not in allowed] == []


@pytest.mark.parametrize(
    "argument",
    [
        "postgresql://ann:s3cret@db/x",
        "--storage=postgresql+psycopg://ann:s3cret@db/x",
        "postgresql://db/x?user=ann&password=s3cret",
        "postgresql://db/x?sslpassword=s3cret",
    ],
)
def test_a_password_on_the_command_line_is_refused_and_not_repeated(argument: str) -> None:
    with pytest.raises(UsageError, match="on the command line") as caught:
        _refuse_passwords(["status", argument])
    assert "s3cret" not in str(caught.value)
    assert "file:PATH" in caught.value.hint


@pytest.mark.parametrize(
    "argument",
    [
        "postgresql://ann@db:5432/x",
        "postgresql://postgres:@/postgres?host=/tmp/x",
        "sqlite:///a:b@c.db",
        "x=1",
    ],
)
def test_an_address_without_a_password_passes(argument: str) -> None:
    _refuse_passwords(["status", "--storage", argument])
