import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.search import race as race_module
from benchmarks.search import table
from benchmarks.search.comparison import compare
from benchmarks.search.ledger import Ledger
from benchmarks.search.race import Key, Run, race
from benchmarks.search.searcher import Exhausted, version_of
from hpo.errors import HpoError
from hpo.space import Candidate
from hpo.trial import Trial
from tests.benchmarks_search.toys import conditional


class Script:
    """Proposes what it is given, in order; keeps what it is told."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.left = list(candidates)
        self.told: list[Trial] = []

    def ask(self) -> Candidate:
        if not self.left:
            raise Exhausted("the script is at its end")
        return self.left.pop(0)

    def tell(self, trial: Trial) -> None:
        self.told.append(trial)


def _thin(keep: float) -> Candidate:
    return Candidate.of({"kind": "thin", "kind.keep": keep, "kind.even": False, "steps": 50, "only": "this"})


NOTHING = Candidate.of({"kind": "none", "steps": 50, "only": "this"})


def _scripted(monkeypatch: pytest.MonkeyPatch, candidates: Sequence[Candidate], trials: int) -> Run:
    script = Script(candidates)
    monkeypatch.setattr(race_module, "make", lambda *_: script)
    run = race(conditional(), "random", trials, seed=0, initial=2)
    monkeypatch.undo()
    told = [trial.candidate for trial in script.told]
    anchors = [candidate for _, candidate in conditional().anchors]
    asked = [candidate for candidate in candidates if candidate not in script.left]
    assert told == [*anchors, *asked]
    return run


def test_a_race_counts_trials_and_their_seconds_but_neither_anchors_nor_refusals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 0.51 and 0.49 are one plan. Each trial takes 2 + 5 seconds.
    run = _scripted(monkeypatch, [_thin(0.51), NOTHING, NOTHING, _thin(0.49), _thin(0.7)], trials=3)
    assert run.seconds == (7.0, 14.0, 21.0)
    assert (run.refused, run.repeated) == (2, 1)
    assert run.anchors < run.hypervolumes[0] == run.hypervolumes[1] < run.hypervolumes[2]


def test_a_race_ends_early_when_there_is_nothing_more_to_propose(monkeypatch: pytest.MonkeyPatch) -> None:
    run = _scripted(monkeypatch, [_thin(0.5)], trials=5)
    assert len(run.hypervolumes) == len(run.seconds) == len(run.ask_seconds) == 1


def test_a_race_ends_when_all_that_is_proposed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    proposed = [_thin(0.5), *[NOTHING] * race_module.PROPOSALS]
    run = _scripted(monkeypatch, proposed, trials=5)
    assert (len(run.hypervolumes), run.refused) == (1, race_module.PROPOSALS)


def test_a_race_of_random_points_is_the_same_each_time() -> None:
    first, second = (race(conditional(), "random", 12, seed=5, initial=4) for _ in range(2))
    assert replace(first, ask_seconds=()) == replace(second, ask_seconds=())
    assert race(conditional(), "random", 12, seed=6, initial=4).hypervolumes != first.hypervolumes


def _key(seed: int, trials: int = 3) -> Key:
    return Key("zdt1", "random", version_of("random"), seed, trials, 2)


def test_a_comparison_runs_only_what_its_ledger_does_not_hold(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "new" / "runs.jsonl")
    compare([_key(0)], ledger, processes=0)
    kept = replace(ledger.runs()[0], anchors=0.125)  # a mark that no second run would leave
    ledger.path.write_text(json.dumps(kept.to_mapping()) + "\n", encoding="utf-8")
    runs = compare([_key(1), _key(0)], ledger, processes=0)
    assert [run.key for run in runs] == [_key(1), _key(0)]
    assert runs[1] == kept
    assert ledger.runs() == [kept, runs[0]]


def test_a_process_of_its_own_finds_the_same(tmp_path: Path) -> None:
    here, there = (
        compare([_key(0)], Ledger(tmp_path / f"{processes}.jsonl"), processes) for processes in (0, 1)
    )
    assert replace(here[0], ask_seconds=()) == replace(there[0], ask_seconds=())


def test_a_line_that_was_cut_short_is_run_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs.jsonl")
    run = _run([0.1], [1.0])
    ledger.append(run)
    ledger.append(run)
    ledger.path.write_bytes(ledger.path.read_bytes()[:-20])
    assert ledger.runs() == [run]
    ledger.append(run)
    assert ledger.runs() == [run, run]


def test_a_line_that_is_no_run_is_an_error_with_its_place(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs.jsonl")
    ledger.append(_run([0.1], [1.0]))
    with ledger.path.open("a", encoding="utf-8") as file:
        file.write('{"key": 1}\n')
    with pytest.raises(HpoError, match="line 2, is no run"):
        ledger.runs()


def test_a_run_that_breaks_down_is_left_out_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(tmp_path / "runs.jsonl")
    broken = replace(_key(0), problem="no such problem")
    assert [run.key for run in compare([broken, _key(0)], ledger, processes=0)] == [_key(0)]
    assert "no such problem" in capsys.readouterr().err


def _run(shares: list[float], seconds: list[float], trials: int = 0, anchors: float = 0.0) -> Run:
    key = Key("p", "s", "v", 0, trials or len(shares), 2)
    return Run(key, anchors, tuple(shares), tuple(seconds), (0.5,) * len(shares), refused=0, repeated=0)


def test_quartiles_are_over_runs_and_a_search_that_ended_stays_where_it_was() -> None:
    runs = [_run([0.1, 0.2, 0.3], [1, 2, 3]), _run([0.5], [1], trials=3), _run([0.2, 0.4, 0.6], [1, 2, 3])]
    found = table.spread_at(runs, 3)
    assert found is not None
    assert (found.low, found.median, found.high) == pytest.approx((0.4, 0.5, 0.55))
    assert table.spread_at(runs, 4) is None


def test_a_level_is_reached_by_trials_and_by_seconds_each_on_its_own_curve() -> None:
    # After two trials the median of three is 0.5. By seconds the slow one is behind: 0.5 is reached by
    # two of three at second 4.
    runs = [
        _run([0.1, 0.6, 0.7], [2, 4, 6]),
        _run([0.3, 0.5, 0.6], [1, 2, 9]),
        _run([0.2, 0.2, 0.9], [5, 10, 15]),
    ]
    found = table.reached(runs, 0.5)
    assert (found.trials, found.seconds) == (2, 4.0)
    assert str(table.reached(runs, 0.95)) == "-"


def test_anchors_may_have_reached_a_level_before_the_first_trial() -> None:
    found = table.reached([_run([0.5], [3.0], anchors=0.4)], 0.4)
    assert (found.trials, found.seconds) == (0, 0.0)


def test_the_tables_have_a_row_a_searcher_and_a_column_a_mark_and_a_level() -> None:
    text = table.markdown([_run([0.1] * 24 + [0.8], list(range(1, 26)))], levels=(0.7,))
    assert "| s | 1 | 0.800 (0.800 to 0.800) | 0 | 0 | 0.5 |" in text
    assert "| s | 25 (25 s) |" in text
