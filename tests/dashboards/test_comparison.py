"""Studies in one box: contributions, cuts and refusals, worked out by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dashboards.comparison import Run, common_box, common_objectives, compare, run_of
from dashboards.comparison_caveats import comparison_caveats
from dashboards.comparison_figure import MOST_MARKS, draw_fronts, fronts_view
from dashboards.comparison_view import CompareView
from hpo.errors import UsageError
from hpo.metric import Source
from hpo.pareto import Frame
from hpo.study import Study
from hpo.trial import Cause
from tests.dashboards.hand import OBJECTIVES, TRIALS, answered, asked, measurement, pair
from tests.store.samples import make_study

BOX = Frame((0.0, 0.0), (4.0, 4.0))


def study(
    name: str = "one", objectives: Sequence[Any] = ("perplexity", "weight_memory"), **changes: Any
) -> Study:
    return Study.from_mapping(make_study(name).to_mapping() | {"objectives": list(objectives)} | changes)


def run(
    name: str,
    *points: tuple[float, float],
    hours: float = 1.0,
    devices: Mapping[str, Sequence[str]] | None = None,
) -> Run:
    """Return a run whose trials finished in this order, each after so many hours more."""
    count = len(points)
    return Run(
        name=name,
        losses=np.array(points, dtype=float).reshape(count, 2),
        hours_after=hours * np.arange(1, count + 1, dtype=float),
        numbers=np.arange(count),
        box=BOX,
        devices={metric: frozenset(found) for metric, found in (devices or {}).items()},
        sources={},
    )


A = run("A", (1, 3), (3, 1))
B = run("B", (2, 2), (3, 1))
C = run("C", (3, 3))


def test_contributions_are_as_worked_out_by_hand() -> None:
    # Of the 16 unit squares of the box A fills 3 + 3 - 1, B 4 + 3 - 2, both together 1 + 2 + 3.
    found = compare([A, B, C], BOX)
    assert found.hypervolume == pytest.approx(6 / 16)
    assert found.union == 3
    assert [s.hypervolume for s in found.shares] == pytest.approx([5 / 16, 5 / 16, 1 / 16])
    assert [(s.given, s.alone) for s in found.shares] == [(2, 1), (2, 1), (0, 0)]
    assert [s.lost for s in found.shares] == pytest.approx([1 / 16, 1 / 16, 0])
    assert [s.front for s in found.shares] == [2, 2, 1]


def test_what_two_studies_both_have_is_lost_with_neither() -> None:
    found = compare([A, replace(A, name="twin")], BOX)
    assert [(s.given, s.alone, s.lost) for s in found.shares] == [(2, 0, 0.0), (2, 0, 0.0)]


def test_a_study_by_itself_is_all_there_is_to_lose() -> None:
    (alone,) = compare([A], BOX).shares
    assert (alone.given, alone.alone) == (2, 2)
    assert alone.lost == pytest.approx(5 / 16)


def test_points_beyond_the_box_are_on_no_front() -> None:
    found = compare([run("far", (5, 0), (1, 3)), A], BOX)
    assert [s.front for s in found.shares] == [1, 2]
    assert found.union == 2


def test_without_a_box_there_are_fronts_and_no_hypervolumes() -> None:
    found = compare([A, C], None)
    assert [(s.front, s.hypervolume, s.lost) for s in found.shares] == [(2, None, None), (1, None, None)]


def test_studies_without_completed_trials_give_nothing() -> None:
    failed = run("failed", (np.nan, np.nan))
    found = compare([failed, run("empty")], BOX)
    assert [(s.trials, s.front, s.hypervolume, s.lost) for s in found.shares] == [(1, 0, 0, 0), (0, 0, 0, 0)]


def test_a_single_objective_can_be_compared() -> None:
    one = replace(A, losses=np.array([[3.0], [1.0]]), box=Frame((0.0,), (4.0,)))
    two = replace(one, name="two", losses=np.array([[2.0], [3.5]]))
    found = compare([one, two], Frame((0.0,), (4.0,)))
    assert [s.hypervolume for s in found.shares] == pytest.approx([0.75, 0.5])
    assert [(s.given, s.lost) for s in found.shares] == [(1, pytest.approx(0.25)), (0, 0.0)]


# The cut


@pytest.mark.parametrize(("hours", "kept"), [(0.0, 0), (0.9, 0), (1.0, 1), (2.5, 2), (99.0, 3)])
def test_a_cut_at_hours_keeps_what_was_done_by_then(hours: float, kept: int) -> None:
    assert run("A", (1, 3), (2, 2), (3, 1)).cut("hours", hours).trials == kept


def test_a_cut_at_trials_keeps_the_first_to_finish() -> None:
    cut = run("A", (1, 3), (2, 2), (3, 1)).cut("trials", 2)
    assert cut.losses.tolist() == [[1, 3], [2, 2]]
    assert cut.hours == 2


def test_no_cut_keeps_all() -> None:
    assert A.cut("all", 0.0) is A


def test_trials_count_in_the_order_in_which_they_finished_with_failures_in_it() -> None:
    failed = asked(7).started("worker", 0.0).failed(Cause.ERROR, "", 2.5)
    found = run_of(study(), [pair(4, 15, 80), failed, pair(1, 20, 50), asked(9)], OBJECTIVES)
    assert found.numbers.tolist() == [1, 7, 4]
    assert found.hours_after.tolist() == [1, 1, 2]
    assert np.isnan(found.losses[1]).all()
    assert found.losses[[0, 2]].tolist() == [[20, 50], [15, 80]]


def test_measurements_of_a_trial_that_failed_later_are_on_no_front() -> None:
    running = asked(0).started("worker", 0.0).advanced(answered(0).stages[0], pair(0, 1, 1).measurements)
    found = run_of(study(), [running.failed(Cause.ERROR, "", 1.0)], OBJECTIVES)
    assert np.isnan(found.losses).all()


# What is common


def test_objectives_may_be_in_another_order() -> None:
    objectives = common_objectives([study(), study("two", ["weight_memory", "perplexity"])])
    assert [o.metric for o in objectives] == ["perplexity", "weight_memory"]
    run = run_of(study("two", ["weight_memory", "perplexity"]), TRIALS, objectives)
    assert run.losses[0].tolist() == [10, 100]


def test_other_objectives_are_refused_by_name() -> None:
    with pytest.raises(UsageError) as caught:
        common_objectives([study(), study("two", ["perplexity", "energy", "macs"])])
    assert "only one has weight memory; only two has energy, macs" in caught.value.message
    assert "measure the same" in caught.value.hint


def test_one_objective_more_is_refused() -> None:
    with pytest.raises(UsageError, match="objectives: only two has energy"):
        common_objectives([study(), study("two", ["perplexity", "weight_memory", "energy"])])


def test_the_common_box_has_the_most_generous_reference_of_all() -> None:
    # One study's limit is 30 and its anchor 100 bytes, the other's 25 and 200: 30, and 1.1 x 200.
    limits = [{"metric": "perplexity", "limit": 25}, "weight_memory"]
    first = run_of(study("one", [OBJECTIVES[0].model_dump(), "weight_memory"]), TRIALS, OBJECTIVES)
    second = run_of(study("two", limits), [pair(0, 10, 200, "anchor:dense")], OBJECTIVES)
    box = common_box([first, second, replace(A, box=None)])
    assert box is not None
    assert list(box.reference) == pytest.approx([30, 220])
    assert list(box.ideal) == [0, 0]
    assert common_box([replace(A, box=None)]) is None


# Caveats


def said(*runs: Run, studies: Sequence[Study] = (), cut: bool = False) -> str:
    return " ".join(comparison_caveats(studies or [study(r.name) for r in runs], runs, cut=cut))


def test_two_devices_are_said_with_the_studies_they_belong_to() -> None:
    one = run("A", (1, 3), devices={"prefill_latency": ["cpu:x"]})
    two = run("B", (1, 3), devices={"prefill_latency": ["cuda:H"]})
    assert "Prefill latency was measured on 2 devices (cpu:x in A; cuda:H in B)" in said(one, two)
    assert said(one, replace(one, name="B")) == ""


def test_measured_and_modelled_values_are_told_apart() -> None:
    measured = replace(A, sources={"energy": frozenset({Source.MEASURED})})
    modelled = replace(A, name="B", sources={"energy": frozenset({Source.MODELLED})})
    assert "Energy is not had in one way (measured in A; modelled in B)." in said(measured, modelled)


def test_other_models_and_texts_are_said() -> None:
    other = study("B", model={"source": "elsewhere"}, data=study().data.model_dump() | {"context": 64})
    text = said(A, replace(A, name="B"), studies=[study("A"), other])
    assert "different models" in text
    assert "elsewhere in B" in text
    assert "different texts or contexts" in text


def test_unequal_budgets_are_said_until_they_are_cut() -> None:
    long, short = run("long", (1, 3), (3, 1), hours=3), run("short", (1, 3), hours=2)
    assert "long 6 worker hours, short 2" in said(long, short)
    assert said(long, short, cut=True) == ""


# The figure


def view(*runs: Run, bands: bool = False, box: Frame | None = BOX) -> Any:
    return fronts_view(runs, OBJECTIVES, box, "perplexity", "weight_memory", bands=bands)


def test_lines_and_marks_are_those_of_the_two_metrics_shown() -> None:
    (line, other) = view(A, C).lines
    assert (line.marks, line.numbers) == (((1, 3), (3, 1)), (0, 1))
    assert line.stairs == ((1, 3), (1, 3), (3, 3), (3, 1), (3, 1))
    assert other.marks == ((3, 3),)


def test_bands_are_drawn_for_three_runs_and_not_for_two() -> None:
    assert view(A, B, bands=True).bands == {}
    bands = view(A, B, run("D", (1.5, 4), (3.5, 3)), bands=True).bands
    assert set(bands) == {25, 50, 75}
    assert bands[75] == ((2, 4), (2, 4), (3.5, 4), (3.5, 3), (3.5, 3))


def test_a_study_without_points_is_named() -> None:
    found = view(A, run("nothing", (np.nan, np.nan)))
    assert found.aside == "Without a point in the box: nothing."
    assert len(draw_fronts(found).data) == 4


def test_studies_without_any_point_have_a_figure_that_says_so() -> None:
    figure = draw_fronts(view(run("a"), run("b", (np.nan, 1))))
    assert "None of these studies has a completed trial" in figure.layout.annotations[0].text


def test_crowded_marks_are_thinned_and_it_is_said_so() -> None:
    many = run("many", *((n / 200, 4 - n / 200) for n in range(500)))
    (line,) = view(many).lines
    assert (len(line.marks), line.left_out, len(line.stairs)) == (MOST_MARKS, 300, 1001)
    assert line.marks[0] == (0, 4)
    assert line.marks[-1] == pytest.approx((2.495, 1.505))
    assert "300 marks left out" in view(many).aside


def test_eight_studies_have_eight_shapes_and_no_two_the_same_colour_and_dash() -> None:
    figure = draw_fronts(view(*(run(f"s{n}", (1 + n / 9, 3)) for n in range(8))))
    marks = [trace for trace in figure.data if trace.mode == "markers"]
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert len({trace.marker.symbol for trace in marks}) == 8
    assert len({(trace.line.color, trace.line.dash) for trace in lines}) == 8


def test_names_are_shown_as_text() -> None:
    figure = draw_fronts(view(run("<b>" + "x" * 300, (1, 3)), A))
    assert figure.data[1].name.startswith("&lt;b&gt;")
    assert len(figure.data[1].name) < 60


# The address


def test_the_address_keeps_all_that_was_chosen() -> None:
    asked_for = CompareView(("a & b", "c"), "energy", "perplexity", "hours", 1.25, True)
    assert CompareView.read(asked_for.search) == asked_for
    assert CompareView.read(None) == CompareView()


def test_what_makes_no_sense_in_an_address_is_as_if_left_out() -> None:
    found = CompareView.read("?study=a&study=a&x=%3Cb%3E&cut=joules&at=nan&seeds=yes")
    assert found == CompareView(("a",), x="<b>")
    assert found.axes(["perplexity", "energy"]) == ("energy", "perplexity")
    assert CompareView(("a",)).axes(["perplexity"]) == ("perplexity", "perplexity")


def test_a_measurement_that_is_missing_keeps_a_trial_off_the_front() -> None:
    lacking = answered(3, measurement("perplexity", 1.0))
    found = run_of(study(), [*TRIALS[:1], lacking], OBJECTIVES)
    assert found.inside(None).tolist() == [True, False]


def test_a_run_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="2 losses, 1 hours and 2 numbers"):
        replace(A, hours_after=np.array([1.0]))
