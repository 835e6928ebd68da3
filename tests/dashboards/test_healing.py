from dataclasses import replace

from dashboards.healing import NONE, draw_healing, has_healed, healing_view
from hpo.healing_curve import HealingCurve
from hpo.trial import StageTime
from tests.dashboards.hand import asked
from tests.dashboards.storied import PLAIN, TAUGHT

TRIAL = asked(1).started("worker", 0.0).advanced(StageTime("heal", 2.0), (), {"heal_kept": 1.0})


def test_a_healing_towards_the_text_has_one_panel_and_says_what_it_brought() -> None:
    view = healing_view(TRIAL, PLAIN)
    assert view is not None
    assert view.sentence == (
        "The loss on text held out from the healing fell from 4.1 to 2.6 nats per token in 60 steps."
    )
    trained, checked = draw_healing(view).data
    assert (trained.x[0], trained.y[0], len(trained.x)) == (1, 3.975, 60)
    assert list(zip(checked.x, checked.y, strict=True)) == [(0, 4.1), (25, 3.4), (60, 2.6)]
    assert (trained.yaxis, checked.yaxis) == (None, None)


def test_another_loss_has_a_panel_of_its_own() -> None:
    view = healing_view(TRIAL, TAUGHT)
    assert view is not None
    checked, trained = draw_healing(view).data
    assert (checked.yaxis, trained.yaxis) == ("y", "y2")
    figure = draw_healing(view)
    assert figure.layout.yaxis.title.text.startswith("nats per token")
    assert figure.layout.yaxis2.title.text.startswith("distil")


def test_a_healing_that_was_taken_back_says_so() -> None:
    view = healing_view(replace(TRIAL, notes={"heal_kept": 0.0}), TAUGHT)
    assert view is not None
    assert "rose from 3.5 to 3.625" in view.sentence
    assert "no gain" in view.sentence


def test_a_shared_healing_says_that_it_is() -> None:
    view = healing_view(replace(TRIAL, notes={"heal_shared_run": "abc"}), PLAIN)
    assert view is not None
    assert "done once for several trials" in view.sentence


def test_one_point_is_drawn_without_a_sentence() -> None:
    view = healing_view(TRIAL, HealingCurve("cross_entropy", checked=((0, 4.0),)))
    assert view is not None
    assert view.sentence == ""
    assert len(draw_healing(view).data) == 2


def test_nothing_kept_is_no_view_and_the_figure_says_why() -> None:
    assert healing_view(TRIAL, None) is None
    assert healing_view(TRIAL, HealingCurve("cross_entropy")) is None
    assert draw_healing(None).layout.annotations[0].text == NONE


def test_only_a_trial_with_a_stage_of_healing_has_healed() -> None:
    assert has_healed(TRIAL)
    assert not has_healed(asked(1).started("worker", 0.0).advanced(StageTime("measure", 2.0)))
