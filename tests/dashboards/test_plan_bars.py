from dashboards.plan_bars import draw_plan, plan_bars, plan_rows
from hpo.trial import LayerRecord

LAYERS = (
    LayerRecord("blocks.0.q", "low_rank", "rank 10", parameters=200, dense_parameters=800, bytes=800),
    LayerRecord("blocks.0.<up>", "mpo", "bonds 4, 4", parameters=300, dense_parameters=200, bytes=1200),
    LayerRecord("norm", "dense", "", parameters=0, dense_parameters=0, bytes=0),
)


def test_shares_are_of_the_dense_parameters() -> None:
    plan = plan_bars(LAYERS)
    assert [bar.share for bar in plan.bars] == [0.25, 1.5, 1.0]
    assert plan.share == 0.5


def test_layers_keep_the_order_of_the_model() -> None:
    axis = draw_plan(plan_bars(LAYERS)).layout.yaxis
    assert axis.categoryarray == ("blocks.0.q", "blocks.0.&lt;up&gt;", "norm")
    assert axis.autorange == "reversed"


def test_hover_says_rank_bonds_and_size_as_text() -> None:
    figure = draw_plan(plan_bars(LAYERS))
    assert [trace.name for trace in figure.data] == ["low rank", "mpo", "dense"]
    assert "rank 10" in figure.data[0].hovertext[0]
    assert "25.0 % of the dense parameters" in figure.data[0].hovertext[0]
    assert "bonds 4, 4" in figure.data[1].hovertext[0]
    assert "<up>" not in figure.data[1].hovertext[0]


def test_a_tall_model_gets_a_tall_figure() -> None:
    assert plan_bars(LAYERS * 80).height > plan_bars(LAYERS).height


def test_no_layers_give_a_message() -> None:
    assert "no plan" in draw_plan(plan_bars(())).layout.annotations[0].text
    assert plan_bars(()).share == 1.0


DENSE = (
    LayerRecord("blocks.0.q", "dense", "as it is", 800, 800, 1600),
    LayerRecord("blocks.0.<up>", "dense", "as it is", 200, 200, 400),
)


def test_bytes_are_shares_of_what_the_dense_plan_holds() -> None:
    plan = plan_bars(LAYERS[:2], DENSE)
    assert [bar.byte_share for bar in plan.bars] == [0.5, 3.0]
    assert plan.byte_share == 1.0
    figure = draw_plan(plan, "bytes")
    assert [trace.x for trace in figure.data] == [(50.0,), (300.0,)]
    assert [trace.x for trace in draw_plan(plan).data] == [(25.0,), (150.0,)]
    assert "50.0 % of its bytes" in figure.data[0].hovertext[0]


def test_without_a_dense_plan_dense_bytes_follow_from_the_layers_that_are_dense() -> None:
    as_it_is = LayerRecord("blocks.1.q", "dense", "as it is", 100, 100, 200)
    assert [bar.byte_share for bar in plan_bars((*LAYERS[:2], as_it_is)).bars] == [0.5, 3.0, 1.0]


def test_without_any_dense_layer_they_follow_from_the_type_of_the_numbers() -> None:
    assert plan_bars(LAYERS[:1], dtype="float32").byte_share == 0.25
    assert plan_bars(LAYERS[:1], dtype="bfloat16").byte_share == 0.5


def test_dense_bytes_that_nothing_tells_are_not_made_up() -> None:
    plan = plan_bars(LAYERS[:2])
    assert plan.byte_share is None
    assert plan.sentence == "50.0 % of the weights of these layers, against the dense model."
    assert "not known" in draw_plan(plan, "bytes").layout.annotations[0].text
    assert [row[3] for row in plan_rows(plan)] == ["–", "–"]


def test_the_table_says_rank_and_shares_in_words() -> None:
    assert plan_rows(plan_bars(LAYERS[:1], DENSE)) == [
        ("blocks.0.q", "low rank, rank 10", "25.0 %", "50.0 %", "200", "800 bytes")
    ]


def test_kinds_differ_in_more_than_colour() -> None:
    traces = draw_plan(plan_bars(LAYERS)).data
    assert len({trace.marker.pattern.shape for trace in traces}) == len(traces) == 3


def test_a_layer_that_is_gone_keeps_nothing() -> None:
    gone = LayerRecord("blocks.9.q", "removed", "removed", 0, 800, 0)
    (bar,) = plan_bars([gone], dtype="float32").bars
    assert (bar.share, bar.byte_share) == (0.0, 0.0)
