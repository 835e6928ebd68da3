import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.front import FrontView, Standing, front_view, knee_of, staircase, standing_of
from hpo.errors import UsageError
from hpo.metric import Source
from hpo.trial import Cause, Trial
from tests.dashboards.hand import OBJECTIVES, TRIALS, answered, asked, measurement, pair


def view(*trials: Trial) -> FrontView:
    return front_view(OBJECTIVES, trials or TRIALS, "weight_memory", "perplexity")


def test_trials_stand_as_worked_out_by_hand() -> None:
    assert standing_of(OBJECTIVES, TRIALS) == {
        0: Standing.FRONT,
        1: Standing.FRONT,
        2: Standing.DOMINATED,
        3: Standing.BEYOND_LIMIT,
        4: Standing.FRONT,
    }


def test_the_stairs_go_through_the_front_and_leave_out_what_breaks_a_limit() -> None:
    assert view().stairs == ((50, 40), (50, 20), (80, 20), (80, 15), (100, 15), (100, 10), (100, 10))


def test_the_knee_is_nearest_to_the_ideal_of_the_scaled_front() -> None:
    # Scaled, the front is (0, 1), (1, 0) and (0.5, 0.6), whose norms are 1, 1 and 0.78.
    assert view().knee == 4


def test_a_front_of_two_has_no_knee() -> None:
    assert knee_of(OBJECTIVES, TRIALS[:2]) is None


def test_the_limit_is_resolved_by_the_dense_model_and_drawn() -> None:
    assert view().y.limit == 30.0
    assert view().y.draws_limit
    assert view().x.limit is None


def test_without_the_dense_model_a_relative_limit_is_not_known() -> None:
    alone = view(pair(1, 20, 50), pair(3, 40, 10))
    assert alone.y.limit is None
    assert [mark.standing for mark in alone.marks] == [Standing.FRONT, Standing.FRONT]


def test_anchors_are_named_and_searched_trials_are_not() -> None:
    assert [mark.anchor for mark in view().marks] == ["dense", "", "", "", ""]


def test_trials_that_are_not_drawn_are_counted_by_reason() -> None:
    unfinished = (
        asked(5),
        asked(6).started("worker", 0.0),
        asked(7).started("worker", 0.0).failed(Cause.OUT_OF_MEMORY, "", 1.0),
        asked(8).started("worker", 0.0).stopped("dominated", 1.0),
        answered(9, measurement("perplexity", 12.0)),
    )
    assert view(*TRIALS, *unfinished).hidden == {
        "waiting": 1,
        "running": 1,
        "failed": 1,
        "stopped": 1,
        "without these two metrics": 1,
    }


def test_measurements_of_a_stopped_trial_are_not_drawn() -> None:
    running = asked(5).started("worker", 0.0)
    screened = running.advanced(TRIALS[1].stages[0], TRIALS[1].measurements).stopped("dominated", 1.0)
    assert 5 not in [mark.number for mark in view(*TRIALS, screened).marks]


def test_a_trial_that_lacks_a_third_objective_is_no_front_member() -> None:
    objectives = (*OBJECTIVES, OBJECTIVES[0].model_copy(update={"metric": "nll", "limit": None}))
    lacking = front_view(objectives, TRIALS, "weight_memory", "perplexity")
    standings = {mark.number: mark.standing for mark in lacking.marks}
    assert standings[1] is Standing.INCOMPLETE
    assert standings[3] is Standing.BEYOND_LIMIT
    assert lacking.stairs == ()
    assert lacking.knee is None


def test_the_front_is_that_of_all_objectives_whatever_is_shown() -> None:
    other = front_view(OBJECTIVES, TRIALS, "weight_memory", "weight_memory")
    assert [mark.number for mark in other.members] == [0, 1, 4]


def test_a_metric_that_is_no_objective_can_be_shown() -> None:
    extra = answered(1, *pair(1, 20, 50).measurements, measurement("nll", 3.0))
    other = front_view(OBJECTIVES, (TRIALS[0], extra), "nll", "perplexity")
    assert [(mark.number, mark.x) for mark in other.marks] == [(1, 3.0)]
    assert "nll" in other.marks[0].hover


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown metric 'speed'"):
        front_view(OBJECTIVES, TRIALS, "speed", "perplexity")


def test_modelled_values_are_told_apart() -> None:
    modelled = answered(
        5, measurement("perplexity", 12.0), measurement("energy", 2.0, source=Source.MODELLED)
    )
    energy = front_view(OBJECTIVES, (*TRIALS, modelled), "energy", "perplexity")
    assert [(mark.number, mark.modelled) for mark in energy.marks] == [(5, True)]
    assert energy.x.modelled
    assert not energy.y.modelled
    assert "(modelled)" in energy.marks[0].hover


def test_hover_shows_recipe_metrics_and_standing_as_plain_text() -> None:
    tricky = answered(1, *TRIALS[1].measurements, origin="<img src=x onerror=alert(1)>")
    hover = view(TRIALS[0], tricky).marks[1].hover
    assert "<img" not in hover
    assert "&lt;img src=x" in hover
    for part in ("trial 1", "20 ppl", "50 bytes", "factorise = svd", "front"):
        assert part in hover


def test_no_trials_give_an_empty_view() -> None:
    empty = front_view(OBJECTIVES, (), "weight_memory", "perplexity")
    assert (empty.marks, empty.stairs, empty.knee, dict(empty.hidden)) == ((), (), None, {})


points = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


@given(points)
def test_stairs_pass_through_every_point_that_is_not_dominated_and_above_none(
    found: list[tuple[int, int]],
) -> None:
    line = staircase(np.array(found, dtype=float), corner=(10.0, 10.0))
    assert line[0][1] == 10.0
    assert line[-1][0] == 10.0
    assert all(a[0] <= b[0] and a[1] >= b[1] for a, b in itertools.pairwise(line))
    for x, y in found:
        assert min(b for a, b in line if a <= x) <= y
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in found):
            assert (x, y) in line
