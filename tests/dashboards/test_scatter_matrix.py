from dataclasses import replace

from dashboards.scatter_matrix import draw_scatter_matrix, scatter_matrix
from hpo.trial import Limit, Objective, Trial
from tests.dashboards.hand import answered, asked, measurement

THREE = (
    Objective(metric="perplexity", limit=Limit(value=30.0)),
    Objective(metric="weight_memory"),
    Objective(metric="prefill_latency"),
)


def triple(number: int, perplexity: float, memory: float, latency: float, origin: str = "sobol") -> Trial:
    found = zip(
        ("perplexity", "weight_memory", "prefill_latency"), (perplexity, memory, latency), strict=True
    )
    return answered(number, *(measurement(*pair) for pair in found), origin=origin)


TRIALS = (
    triple(0, 10, 100, 5, "anchor:dense"),
    triple(1, 20, 50, 3),
    triple(2, 25, 60, 4),  # worse than trial 1 in everything
    triple(3, 40, 10, 2),  # beyond the limit
    answered(4, measurement("perplexity", 12)),  # lacks the others
    asked(5),
)


def test_trials_are_grouped_as_they_stand_and_those_that_lack_an_objective_left_away() -> None:
    matrix = scatter_matrix(THREE, TRIALS)
    assert matrix is not None
    assert dict(matrix.numbers) == {"front": (1,), "others": (2,), "breaks a limit": (3,), "dense": (0,)}
    assert [list(row) for row in matrix.values["front"]] == [[20, 50, 3]]
    assert matrix.left_out == 0
    assert matrix.pairs == 3


def test_every_pair_has_a_panel_with_the_earlier_objective_across() -> None:
    matrix = scatter_matrix(THREE, TRIALS)
    assert matrix is not None
    figure = draw_scatter_matrix(matrix)
    front = [(t.x[0], t.y[0]) for t in figure.data if t.name == "front"]
    assert front == [(20, 50), (20, 3), (50, 3)]
    assert sum(bool(t.showlegend) for t in figure.data) == 4
    assert len({t.marker.symbol for t in figure.data if t.name != "others"}) == 3, "colour is never alone"
    assert figure.layout.yaxis.title.text == "weight memory [bytes]<br>lower is better"


def test_fewer_than_three_objectives_or_more_than_six_have_no_matrix() -> None:
    assert scatter_matrix(THREE[:2], TRIALS) is None
    assert scatter_matrix(THREE * 3, TRIALS) is None


def test_a_crowd_is_thinned_to_what_can_be_seen_and_counted() -> None:
    crowd = [replace(TRIALS[2], number=10 + i) for i in range(5000)]
    front = [triple(6000 + i, 12 + i / 1000, 90 - i / 100, 4.5) for i in range(2000)]
    matrix = scatter_matrix(THREE, [*TRIALS, *crowd, *front])
    assert matrix is not None
    drawn = sum(map(len, matrix.numbers.values()))
    assert matrix.left_out == 7004 - drawn
    assert 3 * drawn <= 2100
    assert len(matrix.numbers["front"]) > 300
    assert len(matrix.numbers["others"]) > 100


def test_nothing_to_draw_says_so() -> None:
    matrix = scatter_matrix(THREE, TRIALS[4:])
    assert matrix is not None
    assert "No completed trial has all objectives" in draw_scatter_matrix(matrix).layout.annotations[0].text
