"""Each peer that is installed here, on a small conditional problem."""

import pytest

from benchmarks.search import searcher
from benchmarks.search.race import race
from benchmarks.search.searcher import make
from hpo.errors import NotFound
from hpo.space import Candidate
from hpo.trial import Trial
from tests.benchmarks_search.toys import conditional

PROPOSED = 10
INITIAL = 4
SLOW = {"botorch/qlognehvi": 9, "botorch/qlognehvi_pool": 9, "ax": 9}
"""Peers that think for seconds: their initial budget leaves them one candidate to choose."""


def _installed(name: str) -> str:
    """Return the name of a searcher, or skip what is missing here."""
    if reason := searcher.missing(name):
        pytest.skip(f"a peer that is not installed: {reason}")
    return name


def _search(name: str, seed: int) -> list[Trial]:
    """Return the anchors and whatever is proposed next, refused or not."""
    simulation = conditional()
    found = simulation.start()
    peer = make(name, simulation.problem, seed, SLOW.get(name, INITIAL))
    for anchor in found:
        peer.tell(anchor)
    for number in range(len(found), len(found) + PROPOSED):
        candidate = peer.ask()
        plan = simulation.problem.preview([candidate]).plans[0]
        answer = simulation.trial if plan else simulation.refused
        found.append(answer(number, candidate, name))
        peer.tell(found[-1])
    return found


@pytest.mark.parametrize("name", searcher.PEERS)
def test_a_peer_proposes_candidates_of_the_space_and_the_same_ones_from_the_same_seed(name: str) -> None:
    first = _search(_installed(name), seed=3)
    space = conditional().problem.space
    assert [t.candidate for t in first[2:] if not space.contains(t.candidate)] == []
    assert len({t.candidate for t in first}) > PROPOSED // 2
    assert [t.candidate for t in _search(name, seed=3)] == [t.candidate for t in first]


@pytest.mark.parametrize("name", ["random", "optuna/nsga2", "optuna/tpe"])
def test_another_seed_is_another_search(name: str) -> None:
    assert [t.candidate for t in _search(name, 0)] != [t.candidate for t in _search(name, 1)]


def test_our_sampler_is_asked_with_all_that_it_was_told() -> None:
    simulation = conditional()
    ours = make("sobol", simulation.problem, seed=0, initial=INITIAL)
    tried: set[Candidate] = set()
    for trial in simulation.start():
        ours.tell(trial)
    for number in range(2, 8):
        candidate = ours.ask()
        assert candidate not in tried
        tried.add(candidate)
        ours.tell(simulation.trial(number, candidate, "sobol"))


def test_no_peer_goes_under_the_name_of_one_of_our_samplers() -> None:
    assert len(set(searcher.names())) == len(searcher.names())


def test_a_searcher_that_does_not_exist_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(NotFound, match="optuna/tpe"):
        make("optuna/tpee", conditional().problem, 0, INITIAL)


def test_versions_tell_two_packages_apart_and_ours_from_both() -> None:
    names = ["random", "optuna/nsga2", "sobol"]
    assert [searcher.version_of(name).split()[0] for name in names] == ["numpy", "optuna", "hpo"]


def test_peers_that_share_a_package_but_no_code_have_versions_of_their_own() -> None:
    versions = {searcher.version_of(name) for name in ("optuna/nsga2", "optuna/tpe", "optuna/gp")}
    assert len(versions) == 3
    assert searcher.version_of("optuna/nsga2") == searcher.version_of("optuna/nsga2_small")


def test_refused_proposals_cost_nothing_and_repeated_plans_cost_their_seconds() -> None:
    run = race(conditional(), "random", trials=60, seed=0, initial=INITIAL)
    # A third of the space is refused; the other two hold some 70 plans.
    assert run.refused > 10
    assert run.repeated > 5
    assert len(run.hypervolumes) == len(run.seconds) == len(run.ask_seconds) == 60
    assert run.seconds[-1] >= 60 * 2.0
