"""The code behind a searcher, so that results are known to be of what stands there now."""

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path


def reached(start: Path, package: str) -> tuple[Path, ...]:
    """Return a module's file and those of all modules of a package that it comes to import, in order of name.

    Imports inside functions count. `start` lies in the package's folder, which has no folders of its own.
    """
    folder, found, left = start.parent, {start}, [start]
    while left:
        for name in _imported(left.pop(), package):
            path = folder / f"{name}.py"
            if path.exists() and path not in found:
                found.add(path)
                left.append(path)
    return tuple(sorted(found))


def _imported(path: Path, package: str) -> Iterable[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == package:
                yield from (alias.name for alias in node.names)
            elif node.module.startswith(f"{package}."):
                yield node.module.removeprefix(f"{package}.")


def digest(paths: Iterable[Path]) -> str:
    """Return 8 hex digits that change when what the files do may have changed: comments and docstrings do not
    count."""
    return hashlib.sha256("".join(map(_said, paths)).encode()).hexdigest()[:8]


def _said(path: Path) -> str:
    return ast.dump(_Bare().visit(ast.parse(path.read_text(encoding="utf-8"))))


class _Bare(ast.NodeTransformer):
    """Takes out text that stands by itself."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        value = node.value.value if isinstance(node.value, ast.Constant) else None
        return None if isinstance(value, str) else node
