"""Evaluate every plan of the space in `data/recorded.yaml` on the reference model, for searches to replay.

Interrupted, it goes on where it stopped; two may share the work (`--part 0/2`, `--part 1/2`). Each plan goes
through the stages of a trial as a worker does them. Seconds are CPU seconds of one thread, which a busy
machine does not stretch. What differs only after its healing is healed once, as in a study; the seconds of
that healing stand with the plan that did it. Latency, as a ratio to the dense model in the same process, is
taken once a form: healing changes no shape, so a plan without it stands for those that differ in that alone.

    python -m benchmarks.record --out rows
    python -m benchmarks.record --table --out rows
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from hpo.compress.planner import plan_of
from hpo.problem import Problem
from hpo.run.anchors import anchors
from hpo.run.job import FIRST_STAGE, Job
from hpo.run.preview import problem_of
from hpo.run.workbench import Workbench
from hpo.search.generate import everything
from hpo.space import Candidate
from hpo.study_file import read_study

DATA = Path(__file__).with_name("data")
STUDY = DATA / "recorded.yaml"
TABLE = DATA / "recorded.csv.gz"
LATENCY = "prefill_latency_ratio"
AFTER = ("quantize",)
"""Stages of the space that come after healing."""


class Recorder:
    """Runs candidates through a workbench and writes a JSON line for each."""

    def __init__(self, rows: Path) -> None:
        self.study = read_study(str(STUDY))
        self.bench = Workbench(self.study.to_mapping())
        self.bench.setup()
        self.profile = self.bench.profile
        self.problem: Problem = problem_of(self.study, self.profile, "")
        self.rows = rows

    def candidates(self) -> list[tuple[str, Candidate, str]]:
        """Return origin, candidate and plan hash of all that can be run, one plan once, the anchors first;
        those that share their healing stand together, what is not rounded first."""
        named = [*anchors(self.problem), *(("space", c) for c in everything(self.study.space))]
        plans = self.problem.preview([candidate for _, candidate in named]).plans
        found = {plan: (*item, plan) for plan, item in reversed(list(zip(plans, named, strict=True))) if plan}
        ordered = [found[plan] for plan in dict.fromkeys(plans) if plan]
        return sorted(ordered, key=lambda item: (item[0] == "space", before(item[1]).key, len(item[1].items)))

    def part(self, share: int, parts: int) -> Iterator[tuple[str, Candidate, str]]:
        """Yield what one of several recorders does: whole groups that share a healing."""
        for key, group in groupby(self.candidates(), key=lambda item: before(item[1]).key):
            if int(key[:8], 16) % parts == share:
                yield from group

    def record(self, origin: str, candidate: Candidate, plan: str) -> dict[str, Any]:
        """Run one candidate; return its row."""
        row: dict[str, Any] = {"origin": origin, "values": dict(candidate.values), "plan": plan}
        row |= {"prefix": plan_of(self.profile, candidate).healed_as, "model": self.bench.dense.digest}
        row |= {"cpu_s": {}, "notes": {}, "measured": {}, "failure": None}
        job, stage = Job(0, 1, candidate, plan), FIRST_STAGE
        while stage:
            started = time.process_time()
            result = self.bench.run(job, stage)
            row["cpu_s"][stage] = round(time.process_time() - started, 3)
            row["notes"] |= result.notes
            row["measured"] |= {m.metric: [m.value, m.spread] for m in result.measurements}
            if result.failure is not None:
                row["failure"] = [str(result.failure.cause), result.failure.message]
            stage = result.following
            if stage == "time" and row["prefix"]:
                break
        self.bench.forget()
        return row

    def run(self, share: int, parts: int) -> None:
        """Record a share of all candidates, but for what the file holds already."""
        done = {row["plan"] for row in read_rows(self.rows.parent) if row["model"] == self.bench.dense.digest}
        with self.rows.open("a", encoding="utf-8") as file:
            for origin, candidate, plan in self.part(share, parts):
                if plan not in done:
                    file.write(json.dumps(self.record(origin, candidate, plan)) + "\n")
                    file.flush()

    def table(self) -> pd.DataFrame:
        """Return what is recorded, a row a candidate of the space and before them the anchors, refused ones
        too; see `benchmarks.search.recorded` for the columns."""
        rows = {r["plan"]: r for r in read_rows(self.rows.parent) if r["model"] == self.bench.dense.digest}
        named = [*anchors(self.problem), *(("space", c) for c in everything(self.study.space))]
        preview = self.problem.preview([candidate for _, candidate in named])
        found = []
        for place, (origin, candidate) in enumerate(named):
            row: dict[str, Any] = {"origin": origin, "values": json.dumps(dict(candidate.values))}
            row |= {"plan": preview.plans[place], "refusal": preview.refusals[place].split("\n")[0]}
            if not preview.plans[place]:
                found.append(row)
                continue
            row |= {f"feature_{i}": value for i, value in enumerate(preview.features[place])}
            row |= dict(zip(self.problem.exact, preview.exact[place], strict=True))
            if recorded := rows.get(preview.plans[place]):
                row |= _columns(recorded, rows, self._form(candidate, rows))
            found.append(row)
        return pd.DataFrame(found)

    def _form(self, candidate: Candidate, rows: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """Return the row of what a candidate is without its healing, which has the same shapes."""
        values = {name: value for name, value in candidate.items if name.partition(".")[0] != "heal"}
        whole = Candidate.of({**values, "heal": "none"} if "heal" in candidate.values else values)
        return rows.get(self.problem.preview([whole]).plans[0], {})


def _columns(
    row: Mapping[str, Any], rows: Mapping[str, dict[str, Any]], form: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the columns of one recorded plan."""
    healed = rows.get(row["prefix"], {}) if row["prefix"] else {}
    notes, seconds = {**healed.get("notes", {}), **row["notes"]}, row["cpu_s"]
    heals = [healed.get("cpu_s", {}).get(stage, 0.0) for stage in ("heal", "heal_on")]
    timed = form.get("measured", {}).get(LATENCY, [None, None])
    perplexity = row["measured"].get("perplexity", [None, None])
    return {
        "prefix": row["prefix"],
        "failure": (row["failure"] or [""])[0],
        "perplexity": perplexity[0],
        "perplexity_spread": perplexity[1],
        LATENCY: timed[0],
        f"{LATENCY}_spread": timed[1],
        **{name: notes.get(name) for name in ("screen_kl", "heal_nll_short", "heal_nll_after")},
        "compress_s": seconds.get("compress", 0.0),
        "screen_s": seconds.get("screen", 0.0),
        "heal_s": heals[0],
        "heal_on_s": heals[1],
        "round_s": seconds.get("heal", 0.0) if row["prefix"] not in ("", row["plan"]) else 0.0,
        "measure_s": seconds.get("measure", 0.0),
        "time_s": form.get("cpu_s", {}).get("time", 0.0),
    }


def before(candidate: Candidate) -> Candidate:
    """Return a candidate without what comes after its healing."""
    kept = {name: value for name, value in candidate.items if name.partition(".")[0] not in AFTER}
    return Candidate.of(kept)


def read_rows(directory: Path) -> list[dict[str, Any]]:
    """Return the rows of all parts in a directory; a torn last line is left out."""
    found = []
    for path in sorted(directory.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True, help="directory of the rows")
    parser.add_argument("--part", default="0/1", help="which of how many, from 0")
    parser.add_argument("--table", action="store_true", help=f"write {TABLE.name} from the rows instead")
    given = parser.parse_args(arguments)
    if given.table:
        table = Recorder(given.out / "none").table()
        table.to_csv(TABLE, index=False, float_format="%.6g", compression={"method": "gzip", "mtime": 0})
        print(f"{table['perplexity'].notna().sum()} of {(table['refusal'] == '').sum()} plans recorded")
        return
    share, _, parts = given.part.partition("/")
    given.out.mkdir(parents=True, exist_ok=True)
    Recorder(given.out / f"part-{share}-of-{parts}.jsonl").run(int(share), int(parts))


if __name__ == "__main__":
    main()
