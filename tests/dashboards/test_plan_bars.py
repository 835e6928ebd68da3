from dashboards.plan_bars import draw_plan, plan_bars
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
