from dashboards.stage_bars import draw_stages, stage_bars, stage_rows
from hpo.trial import StageTime

STAGES = (StageTime("compress", 2.0, 30.0), StageTime("heal_on", 6.0, 90.0))


def test_stages_are_shares_of_the_whole() -> None:
    assert [(bar.stage, bar.share) for bar in stage_bars(STAGES)] == [("compress", 0.25), ("heal_on", 0.75)]


def test_the_table_ends_with_the_sum_of_times_and_joules() -> None:
    assert stage_rows(stage_bars(STAGES)) == [
        ("compress", "2 s", "25.0 %", "30 J"),
        ("heal on", "6 s", "75.0 %", "90 J"),
        ("all", "8 s", "", "120 J"),
    ]


def test_joules_that_were_not_counted_in_every_stage_have_no_sum() -> None:
    rows = stage_rows(stage_bars((*STAGES, StageTime("measure", 2.0))))
    assert rows[2][3] == "–"
    assert rows[3][3] == "not counted in 1 of 3 stages"
    assert stage_rows(stage_bars([StageTime("measure", 2.0)]))[-1][3] == "–"


def test_stages_that_took_no_time_do_not_divide_by_it() -> None:
    assert [bar.share for bar in stage_bars([StageTime("a", 0.0), StageTime("b", 0.0)])] == [0.5, 0.5]


def test_the_bar_is_stacked_and_its_parts_differ_in_more_than_colour() -> None:
    figure = draw_stages(stage_bars(STAGES))
    assert figure.layout.barmode == "stack"
    assert [trace.x[0] for trace in figure.data] == [2.0, 6.0]
    assert len({trace.marker.pattern.shape for trace in figure.data}) == 2
    assert figure.data[1].hovertext == ("heal on: 6 s, 75.0 %",)


def test_the_name_of_a_stage_is_text() -> None:
    figure = draw_stages(stage_bars([StageTime("<b>heal</b>", 1.0)]))
    assert figure.data[0].name == "&lt;b&gt;heal&lt;/b&gt;"
