import json

import plotly.graph_objects as go
import pytest

from dashboards import palette
from dashboards.figures import GRAPH_CONFIG, blank
from dashboards.front import front_view
from dashboards.front_figure import ANCHORS, STAIRS, draw_front
from hpo.metric import Source
from hpo.trial import Cause, Trial
from tests.dashboards.hand import OBJECTIVES, TRIALS, answered, asked, measurement


def drawn(trials: tuple[Trial, ...] = TRIALS, x: str = "weight_memory") -> go.Figure:
    return draw_front(front_view(OBJECTIVES, trials, x, "perplexity"))


def traces(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in figure.data}


def test_figures_offer_no_way_to_send_data_away() -> None:
    assert GRAPH_CONFIG["showSendToCloud"] is False
    assert GRAPH_CONFIG["displaylogo"] is False


def test_each_standing_is_a_trace_with_its_trials() -> None:
    found = traces(drawn())
    assert found["front of all 2 objectives"].customdata == (1, 4)
    assert found["dominated"].customdata == (2,)
    assert found["breaks a limit"].customdata == (3,)
    assert found[ANCHORS].customdata == (0,)
    assert found["knee: trial 4"].x == (80,)
    assert found[STAIRS].x[0] == 50


def test_shape_and_colour_both_tell_standings_apart() -> None:
    found = traces(drawn())
    assert found["breaks a limit"].marker.symbol == ("x",)
    assert found["front of all 2 objectives"].marker.color == (palette.BLUE, palette.BLUE)
    assert found["dominated"].marker.color == (palette.GREY,)
    assert found[ANCHORS].marker.symbol == ("star",)


def test_modelled_values_have_hollow_marks_and_measured_ones_full_ones() -> None:
    modelled = answered(5, *TRIALS[1].measurements, measurement("energy", 2.0, source=Source.MODELLED))
    metered = answered(6, *TRIALS[4].measurements, measurement("energy", 2.5))
    figure = drawn((TRIALS[0], modelled, metered), x="energy")
    assert traces(figure)["front of all 2 objectives"].marker.symbol == ("circle-open", "circle")
    assert "(modelled)" in figure.layout.xaxis.title.text


def test_spreads_become_error_bars_and_zero_ones_do_not() -> None:
    wide = answered(1, measurement("perplexity", 20.0, spread=1.5), measurement("weight_memory", 50.0))
    front = traces(drawn((TRIALS[0], wide)))["front of all 2 objectives"]
    assert front.error_y.array == (1.5,)
    assert front.error_y.visible
    assert not front.error_x.visible


def test_the_limit_is_a_line_with_a_label_at_its_place_also_on_a_logarithmic_axis() -> None:
    low = answered(5, measurement("perplexity", 3.0), measurement("weight_memory", 99.0))
    figure = drawn((*TRIALS, low))
    assert figure.layout.yaxis.type == "log"
    assert [shape.y0 for shape in figure.layout.shapes] == [30.0]
    assert figure.layout.annotations[0].y == pytest.approx(1.4771, abs=1e-4)


def test_zoom_is_kept_while_the_axes_stay() -> None:
    assert drawn().layout.uirevision == drawn(TRIALS[:3]).layout.uirevision


def test_an_empty_front_says_why() -> None:
    failed = asked(0).failed(Cause.ERROR, "no", 1.0)
    assert "No trial has finished yet" in drawn(()).layout.annotations[0].text
    assert "1 failed" in drawn((failed,)).layout.annotations[0].text


def test_a_message_in_a_figure_is_plain_text() -> None:
    assert blank("<b>x</b>").layout.annotations[0].text == "&lt;b&gt;x&lt;/b&gt;"


def test_figures_draw_without_webgl() -> None:
    assert {trace["type"] for trace in json.loads(drawn().to_json())["data"]} == {"scatter"}
