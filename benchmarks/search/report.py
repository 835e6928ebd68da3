"""Tables and figures of the races in the archive, made without racing.

python -m benchmarks.search.report            # writes benchmarks/SEARCH.md and benchmarks/figures/
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from benchmarks.search import audit, effects, figures, table, targets
from benchmarks.search.ablation import ALTERATIONS, WHOLE
from benchmarks.search.archive import RACES, Archive, Current
from benchmarks.search.effects import Effect
from benchmarks.search.programme import FULL, GP_PEERS, Programme, Races
from benchmarks.search.race import Run
from benchmarks.search.targets import Target
from hpo.errors import HpoError

HOME = Path(__file__).parents[1]
PAGE = "SEARCH.md"
DRAWN = "figures"

_INTRODUCTION = """# Our search and others

Written by `{command}`; `python -m benchmarks.search.report` writes it anew from the runs in
`benchmarks/data/races.jsonl.gz`, without racing. How the search works, and how these races are set up:
[docs/search.md](../docs/search.md).

Hypervolumes are shares of the best known one, anchors included; medians and, in brackets, quartiles over
seeds. Everybody is told the same anchors first, and they count as no trial. Seconds are those that a worker
would be busy with the trials, as recorded; CPU seconds are those of the search itself, on one thread. A
repeated plan costs its seconds and brings nothing; a refused candidate costs nothing and is no trial.
"""


@dataclass(frozen=True)
class Report:
    """The races of a programme, as far as an archive holds them for the code at hand."""

    programme: Programme
    archive: Archive

    @cached_property
    def current(self) -> Current:
        return Current.of(self.archive.runs)

    def runs(self, races: Races) -> list[Run]:
        """Return the runs of some races."""
        return races.of(self.current.runs)

    def compared(self, problem: str) -> dict[str, list[Run]]:
        """Return the runs of a problem by searcher, ours first; with stopping it is a searcher of its own."""
        found = [run for races in self.programme.compared(problem) for run in self.runs(races)]
        if problem == self.programme.stopping.problem:
            name = f"{WHOLE}, stopping"
            found += [replace(r, key=replace(r.key, searcher=name)) for r in self.stopping]
        by_name = dict(table.grouped(found).get(problem, {}))
        return dict(sorted(by_name.items(), key=lambda item: not item[0].startswith(WHOLE)))

    @cached_property
    def stopping(self) -> list[Run]:
        return self.runs(self.programme.stopping)

    @cached_property
    def plain(self) -> list[Run]:
        """Ours on the problem and seeds of those with stopping, without."""
        return self.runs(replace(self.programme.stopping, stopping=False))

    @cached_property
    def effects(self) -> list[Effect]:
        """What is found of each part: those taken away, stopping, and what another study teaches."""
        trials = self.programme.ablation.trials
        ablated = table.grouped(self.runs(self.programme.ablation)).get(self.programme.ablation.problem, {})
        seeds = self.programme.ablation.seeds
        few = [run for run in self.stopping if run.key.seed < seeds]
        sources = [
            *((ALTERATIONS[name].label, runs) for name, runs in ablated.items()),
            ("trials are stopped", few),
            ("warm start: the study of another model is known", self.runs(self.programme.warm)),
        ]
        found = (effects.paired(label, runs, self.plain, trials) for label, runs in sources)
        return [effect for effect in found if effect is not None]

    @cached_property
    def targets(self) -> list[Target]:
        """What was wanted of ours beside the peers, and whether it is so."""
        problem, trials = self.programme.stopping.problem, self.programme.stopping.trials
        found = self._peers(problem)
        wanted = targets.speed(self.plain, self.stopping, found, trials)
        wanted.append(audit.target(self.stopping))
        for other in self.programme.problems:
            if other != problem:
                longest = max(races.trials for races in self.programme.compared(other))
                gp = {name: runs for name, runs in self._peers(other).items() if name in GP_PEERS}
                wanted.append(targets.level(other, self.compared(other).get(WHOLE, []), gp, longest))
        return wanted

    def _peers(self, problem: str) -> dict[str, list[Run]]:
        return {name: runs for name, runs in self.compared(problem).items() if not name.startswith(WHOLE)}

    def page(self, command: str) -> str:
        """Return the page. `command` is what makes it."""
        return "\n\n".join(part.strip() for part in self._parts(command)) + "\n"

    def _parts(self, command: str) -> Iterator[str]:
        yield _INTRODUCTION.format(command=command)
        yield self._provenance()
        yield f"## Ours against the best peer\n\n{targets.markdown(self.targets)}"
        yield "Which peer is best is told by the medians, with as many seeds as the tables below say."
        for problem in self.programme.problems:
            if runs := self.compared(problem):
                yield f"## {problem}"
                yield _image(f"{problem}_trials", f"hypervolume over trials on {problem}")
                if problem == self.programme.stopping.problem:
                    yield _image(f"{problem}_seconds", f"hypervolume over seconds on {problem}")
                yield table.both(runs)
        if savings := audit.paired(self.stopping, self.plain):
            yield "## What stopping saves"
            yield _AUDIT
            yield audit.markdown(savings)
        if self.effects:
            yield "## What each part brings"
            yield _ABLATION.format(trials=self.programme.ablation.trials)
            yield _image("ablation", "what each part of the search brings")
            yield effects.markdown(self.effects)
        yield "## Who took part"
        yield self._programme()

    def _provenance(self) -> str:
        lines = [f"- {made.date}, {count} runs: {made.about}" for made, count in self.archive.counts.items()]
        wanted = sum(races.seeds * len(races.searchers) for races in self.programme.all)
        there = sum(len(self.runs(races)) for races in self.programme.all)
        lines.append(f"- Of {wanted} runs of the programme, {there} are here.")
        if stale := self.current.stale:
            lines.append(f"- {stale} runs are left out: their searchers have another version now.")
        if unchecked := self.current.unchecked:
            names = ", ".join(unchecked)
            lines.append(f"- Not installed where this was written, so versions as recorded: {names}.")
        return "\n".join(lines)

    def _programme(self) -> str:
        """Return what was raced, and in which version everybody took part."""
        head = ["problem", "searchers", "runs", "seeds", "trials", "start", "stopping"]
        rows, versions = [], dict[str, set[str]]()
        for races in self.programme.all:
            runs = self.runs(races)
            for run in runs:
                versions.setdefault(run.key.searcher, set()).add(run.key.version)
            names = ", ".join(races.searchers)
            count = f"{len(runs)} of {races.seeds * len(races.searchers)}"
            rest = [str(races.seeds), str(races.trials), str(races.initial)]
            rows.append([races.problem, names, count, *rest, "yes" if races.stopping else "no"])
        known = [[name, ", ".join(sorted(found))] for name, found in versions.items()]
        return f"{_FEWER}\n\n{table.grid(head, rows)}\n\n{table.grid(['searcher', 'version'], known)}"

    def draw(self, directory: Path) -> None:
        """Draw the figures.

        Raises:
            ImportError: matplotlib is not installed.
        """
        for problem in self.programme.problems:
            if runs := self.compared(problem):
                figures.over_trials(directory / f"{problem}_trials.svg", problem, runs)
                if problem == self.programme.stopping.problem:
                    figures.over_seconds(directory / f"{problem}_seconds.svg", problem, runs)
        if self.effects:
            figures.ablation(directory / "ablation.svg", self.effects)


_AUDIT = """The same seeds with and without stopping, over as many trials; after the first trial that is
stopped the two are different searches. A front member is lost if it was stopped and would be on the front of
all trials of its run had none been stopped."""

_ABLATION = """The first {trials} trials of the whole search and of searches with one thing different, on the
same seeds. Differences are means over seeds; of the last column, the hypervolume's mean over all trials, with
its standard error. A part that is worth having makes the difference without it negative."""

_FEWER = """Who thinks for seconds a trial has fewer seeds, trials or problems, so that all of it takes two
hours on two cores. On spaces that are not of real numbers alone, `botorch/qlognehvi` has no gradient to
follow and is what `botorch/qlognehvi_pool` is. Nothing in the recorded table fails, so the model of failures
has no part in this."""


def _image(name: str, words: str) -> str:
    return f"![{words}]({DRAWN}/{name}.svg)"


def write(report: Report, directory: Path, command: str) -> None:
    """Write the page and draw the figures beside it; those that cannot be drawn here stay as they are."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / PAGE).write_text(report.page(command), encoding="utf-8")
    try:
        report.draw(directory / DRAWN)
    except ImportError as error:
        sys.stderr.write(f"no figure is drawn: {error}; install 'compression-hpo[bench]'\n")


def main(arguments: Sequence[str]) -> None:
    if arguments:
        raise HpoError(
            f"{' '.join(arguments)!r}: there are no options", "see `python -m benchmarks.search.bench`"
        )
    write(Report(FULL, Archive.read(RACES)), HOME, "make bench-search")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except HpoError as error:
        sys.exit(str(error))
