"""Figures of a small ledger."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.search import figures, searcher
from benchmarks.search.effects import Effect
from benchmarks.search.race import Key, Run

pytest.importorskip("matplotlib", reason="no matplotlib: install 'compression-hpo[bench]' to draw")

LARGEST = 150_000
"""Bytes of a figure."""


def _run(name: str, seed: int, trials: int) -> Run:
    rng = np.random.default_rng([seed, len(name)])
    shares = np.maximum.accumulate(rng.random(trials)).tolist()
    seconds = np.cumsum(rng.random(trials)).tolist()
    return Run(Key("p", name, "v", seed, trials, 8), 0.1, tuple(shares), tuple(seconds), (), 0, 0)


def _ledger(names: tuple[str, ...], seeds: int, trials: int) -> dict[str, list[Run]]:
    return {name: [_run(name, seed, trials) for seed in range(seeds)] for name in names}


def _words(path: Path) -> list[str]:
    """Return what can be read in a figure; raises if it is no XML."""
    return [text for text in ElementTree.parse(path).getroot().itertext() if text.strip()]


@pytest.mark.parametrize("draw", [figures.over_trials, figures.over_seconds])
def test_a_figure_names_every_searcher_and_is_the_same_each_time(tmp_path: Path, draw: object) -> None:
    assert callable(draw)
    ledger = _ledger(("bayesian", "random", "some other"), seeds=3, trials=12)
    one, two = tmp_path / "deep" / "one.svg", tmp_path / "two.svg"
    draw(one, "p", ledger)
    draw(two, "p", ledger)
    assert one.read_bytes() == two.read_bytes()
    assert {"bayesian (3)", "random (3)", "some other (3)"} <= set(_words(one))


def test_the_figure_of_the_whole_programme_is_small_enough(tmp_path: Path) -> None:
    names = ("bayesian", "bayesian, stopping", *searcher.PEERS)
    ledger = _ledger(names, seeds=10, trials=100)
    for draw in (figures.over_trials, figures.over_seconds):
        draw(tmp_path / "figure.svg", "p", ledger)
        assert (tmp_path / "figure.svg").stat().st_size < LARGEST


def test_the_figure_of_the_ablation_has_a_line_for_each_thing_that_is_off(tmp_path: Path) -> None:
    whole = tuple(_run("bayesian", seed, 5) for seed in range(2))
    labels = ["no features", "a start that is twice as long as it would be"]
    found = [Effect(label, tuple(_run(label, seed, 5) for seed in range(2)), whole) for label in labels]
    figures.ablation(tmp_path / "figure.svg", found)
    words = _words(tmp_path / "figure.svg")
    assert all(label in " ".join(word.strip() for word in words) for label in labels)
    ticks = [word for word in words if word.lstrip("−-").replace(".", "").isdigit()]
    assert len(set(ticks)) == len(ticks) > 2  # what is read is not shortened, coordinates are


def test_every_peer_and_ours_have_a_look_of_their_own() -> None:
    assert set(figures.STYLES) == {"bayesian", "bayesian, stopping", *searcher.PEERS}
    assert len(set(figures.STYLES.values())) == len(figures.STYLES)
