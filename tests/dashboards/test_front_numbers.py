"""What the browser computes is what Python computes: the scripts of the front beside their counterparts."""

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page

from dashboards.front import Standing, knee_of, staircase, standing_of
from hpo.format import duration_text, number_text, spread_text, value_text
from hpo.metric import metric
from hpo.pareto import nondominated
from hpo.problem import bounds
from hpo.trial import Limit, Objective, Trial, TrialState
from tests.dashboards.browsing import browser
from tests.dashboards.synthetic import asked, candidate, measured

__all__ = ["browser"]  # a fixture

pytestmark = pytest.mark.browser

ASSETS = Path(__file__).parents[2] / "dashboards" / "assets"
METRICS = ("perplexity", "prefill_latency", "weight_memory")
Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def script(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    for name in ("front_1_numbers.js", "front_2_text.js"):
        page.add_script_tag(path=ASSETS / name)
    yield page
    page.close()


def sent(numbers: NDArray[Any] | Sequence[float], kind: str) -> str:
    return base64.b64encode(np.asarray(numbers).astype(kind).tobytes()).decode()


def feed(values_NM: Array, states: Sequence[int] | None = None) -> dict[str, Any]:
    """Return what the browser would be sent of trials with these values; state 2 is completed."""
    count, width = values_NM.shape
    return {
        "columns": {
            "number": sent(np.arange(count), "<i4"),
            "state": sent([2] * count if states is None else states, "u1"),
            "seconds": sent(np.ones(count), "<f4"),
            "values": [sent(column, "<f8") for column in values_NM.T],
            "spreads": [sent(np.zeros(count), "<f4")] * width,
            "modelled": [sent(np.zeros(count), "u1")] * width,
            "anchors": {},
            "origins": ["x"] * count,
            "recipes": ["x"] * count,
            "causes": {},
        }
    }


def trials_of(values_NM: Array, names: Sequence[str]) -> list[Trial]:
    found = []
    for number, row in enumerate(values_NM):
        known = [measured(name, float(v)) for name, v in zip(names, row, strict=True) if np.isfinite(v)]
        begun = asked(number, candidate(0.5), "x").started("w", 0.0)
        found.append(Trial(**{**vars(begun), "measurements": tuple(known)}).completed(1.0))
    return found


def described(names: Sequence[str], limits: Sequence[float | None]) -> list[dict[str, Any]]:
    return [
        {"name": name, "lower": metric(name).better == "lower", "limit": limit, "divisor": 1.0}
        for name, limit in zip(names, limits, strict=True)
    ]


def run(page: Page, body: str, *arguments: Any) -> Any:
    return page.evaluate(f"(given) => {{ const N = hpo.numbers, T = hpo.text; {body} }}", list(arguments))


@pytest.mark.parametrize("seed", range(12))
def test_standings_and_knee_are_those_of_python(script: Page, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = METRICS[: int(rng.integers(1, 4))]
    values = np.round(rng.uniform(1, 3, (int(rng.integers(1, 60)), len(names))), 1)  # ties are wanted
    values[rng.random(values.shape) < 0.05] = np.nan
    limits = [float(rng.uniform(1.5, 3)) if rng.random() < 0.5 else None for _ in names]
    objectives = [
        Objective(metric=name, limit=None if limit is None else Limit(value=limit))
        for name, limit in zip(names, limits, strict=True)
    ]
    trials = trials_of(values, names)
    expected = standing_of(objectives, trials)
    assert bounds(objectives, trials).shape == (len(names),)
    found = run(
        script,
        "const table = N.read(given[0]); const s = N.standings(table, given[1], given[2], 2);"
        "const front = N.frontUnder(table, given[1], given[2], s, N.kept(table, given[1], s, []), []);"
        "const words = Array.from(s, (code) => N.WORDS[code]);"
        "return [words, N.knee(table, given[1], given[2], front), front.length];",
        feed(values),
        described(names, limits),
        len(names),
    )
    assert found[0] == [str(expected[trial.number]) for trial in trials]
    knee = knee_of(objectives, trials)
    if found[2] >= 3:
        assert found[1] == knee
    assert (found[1] == -1) == (Standing.FRONT not in expected.values())


@pytest.mark.parametrize("seed", range(8))
def test_the_front_is_that_of_python(script: Page, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.round(rng.random((300, int(rng.integers(1, 6)))), 2)
    found = run(
        script,
        "return N.nondominated(given[0].map((c) => Float64Array.from(c)), given[1]);",
        points.T.tolist(),
        list(range(len(points))),
    )
    assert found == np.flatnonzero(nondominated(points)).tolist()


@pytest.mark.parametrize("seed", range(6))
def test_under_limits_the_front_is_that_of_the_trials_that_keep_them(script: Page, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random((80, 3))
    worst = float(rng.uniform(0.3, 0.8))
    body = (
        "const table = N.read(given[0]); const s = N.standings(table, given[1], given[2], 2);"
        "const limits = [[given[3], given[4]]]; const inside = N.kept(table, given[1], s, limits);"
        "return N.frontUnder(table, given[1], given[2], s, inside, limits);"
    )
    metrics = described(METRICS, [None] * 3)
    for objectives, place in ((3, 1), (2, 2)):  # a limit on an objective, and on a metric that is none
        found = run(script, body, feed(values), metrics, objectives, place, worst)
        kept = np.flatnonzero(values[:, place] <= worst)
        assert found == kept[nondominated(values[kept][:, :objectives])].tolist()


@pytest.mark.parametrize("seed", range(6))
def test_the_attainment_line_is_that_of_python(script: Page, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.round(rng.random((int(rng.integers(1, 30)), 2)), 1)
    expected = staircase(values, (float(values[:, 0].max()), float(values[:, 1].max())))
    rows = list(range(len(values)))
    found = run(
        script,
        "return N.staircase(N.read(given[0]), given[1], 0, 1, given[2], given[2]);",
        feed(values),
        described(METRICS[:2], [None] * 2),
        rows,
    )
    assert found == [list(point) for point in expected]


def test_the_nearest_to_impossible_limits_is_found(script: Page) -> None:
    values = np.array([[2.0, 9.0], [3.0, 4.0], [6.0, 3.0]])
    # under (1, 3): the first is beyond by 100 % and 200 %, the second by 200 % and 33 %, the third by 500 %
    body = (
        "const t = N.read(given[0]);"
        "return N.nearest(t, given[1], N.standings(t, given[1], 2, 2), [[0, 1], [1, 3]]);"
    )
    found = run(script, body, feed(values), described(METRICS[:2], [None] * 2))
    assert found[0] in (0, 1)
    assert found[2] == pytest.approx(2.0)


def test_news_take_the_place_of_what_was_known_and_new_trials_come_behind(script: Page) -> None:
    body = (
        "const news = N.read(given[1]); news.number.set([1, 2]);"
        "const t = N.merged(N.read(given[0]), news);"
        "return [Array.from(t.number), Array.from(t.values[0]), t.count, t.place.get(2)];"
    )
    found = run(script, body, feed(np.array([[1.0], [2.0]])), feed(np.array([[20.0], [30.0]])))
    assert found == [[0, 1, 2], [1.0, 20.0, 30.0], 3, 2]


def test_where_more_is_better_the_front_is_on_the_other_side(script: Page) -> None:
    metrics = described(METRICS[:2], [None, 0.3])
    metrics[1]["lower"] = False  # at least 0.3
    values = np.array([[1.0, 0.5], [2.0, 0.9], [2.0, 0.4], [0.5, 0.2]])
    body = (
        "const t = N.read(given[0]); const s = N.standings(t, given[1], 2, 2);"
        "const line = N.staircase(t, given[1], 0, 1, [0, 1], [0, 1, 2, 3]);"
        "return [Array.from(s, (code) => N.WORDS[code]), line];"
    )
    words, line = run(script, body, feed(values), metrics)
    assert words == ["front", "front", "dominated", "breaks a limit"]
    assert line == [[1.0, 0.2], [1.0, 0.5], [2.0, 0.5], [2.0, 0.9], [2.0, 0.9]]


def test_trials_that_are_not_over_stand_nowhere(script: Page) -> None:
    states = [list(TrialState).index(TrialState(name)) for name in ("running", "completed", "failed")]
    body = "return Array.from(N.standings(N.read(given[0]), given[1], 1, 2));"
    found = run(script, body, feed(np.array([[1.0], [2.0], [0.5]]), states), described(METRICS[:1], [None]))
    assert found == [0, 4, 0]


NUMBERS = (
    0.0,
    1.0,
    12.0,
    4.6543,
    0.000123456,
    0.00001234,
    1234.56,
    98765.4321,
    12345678.9,
    -3.21,
    1e-12,
    999.96,
)


def test_numbers_read_as_they_do_in_the_terminal(script: Page) -> None:
    assert run(script, "return given[0].map((v) => T.number(v));", NUMBERS) == [
        number_text(v) for v in NUMBERS
    ]
    unit = {"divisor": 1.0, "unit": "ppl"}
    pairs = [(4.6543, 0.0123), (123.4, 5.6), (0.002, 0.00031), (7.0, 0.0)]
    assert run(script, "return given[1].map(([v, s]) => T.spread(given[0], v, s));", unit, pairs) == [
        spread_text(value, spread, "ppl") for value, spread in pairs
    ]
    assert run(script, "return T.value(given[0], 5.25);", unit) == value_text(5.25, "ppl")
    times = [0.5, 59.0, 61.0, 3600.0, 3725.0, 90061.0]
    assert run(script, "return given[0].map((s) => T.seconds(s));", times) == [
        duration_text(s) for s in times
    ]


@pytest.mark.parametrize("name", ["plain", "it's", "a b", "🙂", "$(rm -rf /)", "<b>"])
def test_words_are_quoted_for_a_shell(script: Page, name: str) -> None:
    import shlex

    assert run(script, "return T.quoted(given[0]);", name) == shlex.quote(name)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("6", 6 * 2.0),
        ("1,234", 2468.0),
        ("1.1x", 1.1 * 5.0),
        ("1.5 ×", 7.5),
        ("", None),
        ("much", None),
        ("-1", -2.0),
    ],
)
def test_a_limit_may_be_written_as_a_value_or_a_ratio(script: Page, text: str, limit: float | None) -> None:
    found = run(script, "return T.limitOf({divisor: 2, dense: 5}, given[0]);", text)
    assert found == (None if limit is None else pytest.approx(limit))


def test_a_ratio_needs_the_dense_model(script: Page) -> None:
    assert run(script, "return T.limitOf({divisor: 1, dense: null}, '1.1x');") is None


def test_the_address_holds_the_state_of_the_page(script: Page) -> None:
    metrics = described(METRICS, [None] * 3)
    body = (
        "const s = T.readAddress(given[1], given[0]);"
        "return [s.x, s.y, s.colour, s.logX, s.logY, [...s.limits], T.writeAddress(s, given[0])];"
    )
    search = (
        "?x=weight_memory&y=perplexity&scale_x=log&limit=perplexity%3C%3D5.25&limit=weight_memory%3C%3D1000"
    )
    found = run(script, body, metrics, search)
    assert found[:6] == [2, 0, None, True, None, [[0, 5.25], [2, 1000]]]
    assert json.dumps(run(script, body, metrics, found[6])) == json.dumps(found)


def test_what_an_address_says_wrongly_is_left_out(script: Page) -> None:
    search = (
        "?x=nonsense&colour=&limit=perplexity&limit=perplexity%3E%3D3&limit=no%3C%3D1&limit=perplexity%3C%3Dx"
    )
    body = "const s = T.readAddress(given[1], given[0]); return [s.x, s.colour, s.limits.size];"
    assert run(script, body, described(METRICS, [None] * 3), search) == [None, None, 0]
