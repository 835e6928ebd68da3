"""Which code a result is of."""

from pathlib import Path

from benchmarks.search.sources import digest, reached


def write(folder: Path, **modules: str) -> None:
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")


def test_modules_are_followed_through_functions_and_circles_and_others_are_not(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="from room.b import x\n",
        b="def f():\n    from room.c import y\n    import os\n",
        c="from room import a\nfrom elsewhere.d import z\n",
        d="",
    )
    found = reached(tmp_path / "a.py", "room")
    assert [path.stem for path in found] == ["a", "b", "c"]


def test_comments_and_docstrings_change_nothing_and_code_does(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    seen = []
    for text in (
        'def f():\n    """Say."""\n    return 1\n',
        '"""Head."""\n\ndef f():\n    """Say otherwise."""\n    return 1  # so\n',
        "def f():\n    return 2\n",
    ):
        path.write_text(text, encoding="utf-8")
        seen.append(digest([path]))
    assert seen[0] == seen[1] != seen[2]
    assert all(len(one) == 8 for one in seen)
