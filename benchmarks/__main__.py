"""Run every benchmark, or those named, and write their tables with machine, versions and date.

python -m benchmarks [preview store ...]
"""

import contextlib
import datetime
import importlib
import io
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path

from hpo.measure.device import environment

BENCHMARKS = (
    "runner",
    "idle",
    "coordinator",
    "compress",
    "preview",
    "ask",
    "surrogate",
    "cli",
    "store",
    "dashboard",
    "measuring_lock",
    "reference",
    "layer",
    "factors",
    "methods",
    "healing",
    "mpo",
    "quantize",
    "prune",
    "sparsify",
    "everything",
    "refining",
    "spectral_regulariser",
)
RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """# Measured figures

Written by `make bench`; one section a benchmark, each run as a whole in one process family so that its
ratios are fair. Machines are shared and noisy: read ratios first.
"""


def section(name: str) -> str:
    """Run one benchmark; return its question, its table, and where and when it was measured."""
    module = importlib.import_module(f"benchmarks.{name if name == 'chaos' else f'bench_{name}'}")
    question = (module.__doc__ or "").strip().splitlines()[0]
    out, started = io.StringIO(), time.time()
    with contextlib.redirect_stdout(out):
        module.main()
    found = environment()
    keys = ("cpu", "cores", "memory", "python")
    packages = ("torch", "ray", "optuna", "botorch", "sqlalchemy")
    about = ", ".join(
        [f"{key} {found[key]}" for key in keys] + [f"{name} {version(name)}" for name in packages]
    )
    today = datetime.date.fromtimestamp(started).isoformat()
    taken = f"{time.time() - started:.0f} s"
    return f"## {name}\n\n{question}\n\n{out.getvalue().strip()}\n\n*{today}, {taken}; {about}*\n"


def main(names: list[str]) -> None:
    for name in names or BENCHMARKS:
        sys.stderr.write(f"{name} ...\n")
        found = section(name).removeprefix(f"## {name}\n")
        # Read only now: another run may have written its own sections meanwhile.
        known = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else HEAD
        sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", known, flags=re.S | re.M))
        sections[name] = found
        ordered = [n for n in (*BENCHMARKS, "nodes", "chaos", "faults") if n in sections]
        body = "\n".join(f"## {n}\n\n{sections[n].strip()}\n" for n in ordered)
        RESULTS.write_text(f"{HEAD}\n{body}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
