"""Which races are run, and that they fit names and hours."""

from dataclasses import replace

import pytest

from benchmarks.search import problems, searcher
from benchmarks.search.ablation import ALTERATIONS
from benchmarks.search.programme import FULL, QUICK, SHORT, Programme, Races, cpu_seconds
from benchmarks.search.race import Key, Run

BOTH = pytest.mark.parametrize("programme", [FULL, SHORT], ids=["full", "short"])


@BOTH
def test_every_race_is_of_a_problem_and_a_searcher_that_exist_and_none_is_run_twice(
    programme: Programme,
) -> None:
    keys = [key for races in programme.all for key in races.keys(lambda *_: "v")]
    assert {key.problem for key in keys} <= set(problems.PROBLEMS)
    assert {key.searcher for key in keys} <= set(searcher.names())
    assert len(set(keys)) == len(keys)


def test_every_peer_and_everything_that_can_be_off_takes_part() -> None:
    assert set(FULL.searchers) == {"bayesian", *searcher.PEERS, *ALTERATIONS}
    assert set(FULL.problems) == set(problems.PROBLEMS) - {
        "recorded_warm",
        "recorded_reversed",
        "recorded_shuffled",
    }


def test_whoever_is_quick_searches_every_problem_from_ten_seeds() -> None:
    for problem in FULL.problems:
        seeds = {name: races.seeds for races in FULL.compared(problem) for name in races.searchers}
        assert all(seeds[name] >= 10 for name in ("bayesian", "optuna/gp", *QUICK)), problem


@BOTH
def test_the_short_and_the_full_programme_take_the_time_that_they_say(programme: Programme) -> None:
    cores, minutes = 2, 120 if programme is FULL else 10
    assert programme.cpu_seconds <= cores * minutes * 60


def test_a_race_takes_its_start_and_its_trials() -> None:
    key = Key("zdt1", "bayesian/no_features", "v", 0, 50, 8)
    assert cpu_seconds(key) == pytest.approx(4 + 50 * 0.6)
    assert cpu_seconds(replace(key, searcher="random")) == 4
    assert Races("zdt1", ("bayesian", "random"), seeds=3, trials=50).cpu_seconds == pytest.approx(3 * 38)


@BOTH
def test_stopping_and_ablation_are_beside_runs_of_the_whole_search_on_their_seeds(
    programme: Programme,
) -> None:
    (whole,) = (
        races
        for races in programme.compared(programme.stopping.problem)
        if set(programme.stopping.searchers) <= set(races.searchers)
    )
    for races in (programme.stopping, programme.ablation, programme.warm):
        assert races.seeds <= whole.seeds
        assert races.trials <= whole.trials
        assert races.initial == whole.initial
    assert programme.stopping.trials == whole.trials
    assert programme.warm.trials == programme.ablation.trials


def test_races_find_their_runs_in_order_whatever_the_version() -> None:
    races = Races("zdt1", ("b", "a"), seeds=2, trials=5)
    keys = [Key("zdt1", name, f"v{seed}", seed, 5, 8) for name in "ab" for seed in (1, 0)]
    runs = [Run(key, 0.0, (), (), (), 0, 0) for key in (*keys, replace(keys[0], trials=6))]
    assert [(r.key.searcher, r.key.seed) for r in races.of(runs)] == [("b", 0), ("b", 1), ("a", 0), ("a", 1)]
    assert replace(races, stopping=True).of(runs) == []


def test_races_without_a_seed_are_refused() -> None:
    with pytest.raises(ValueError, match="without a seed"):
        Races("zdt1", ("random",), seeds=0, trials=5)
