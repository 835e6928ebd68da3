from dataclasses import replace

from dashboards.lineage import Lineage, Link, lineage_of
from hpo.search.descent import origin
from hpo.trial import Note, Trial
from tests.dashboards.hand import asked


def with_notes(number: int, origin: str = "sobol", **notes: Note) -> Trial:
    return replace(asked(number, origin), notes=notes)


def test_a_trial_that_started_from_nothing_has_no_family() -> None:
    assert lineage_of(asked(1), [asked(0), asked(1)]).is_empty


def test_parents_line_and_children_are_found() -> None:
    family = [
        asked(0),
        with_notes(1, heal_parent=0.0),
        with_notes(2, heal_parent=1.0),
        with_notes(3, origin(2)),
        with_notes(4, origin(2), heal_parent=2.0),
    ]
    assert lineage_of(family[2], family) == Lineage(
        parents=(Link("healed", 1),),
        line=(1, 0),
        children=(Link("moved", 3), Link("healed", 4), Link("moved", 4)),
    )
    assert lineage_of(family[4], family).parents == (Link("healed", 2), Link("moved", 2))


def test_parents_that_are_not_there_and_circles_do_no_harm() -> None:
    family = [with_notes(0, heal_parent=1.0), with_notes(1, heal_parent=0.0), with_notes(2, heal_parent=9.0)]
    assert lineage_of(family[0], family).line == (1, 0)
    assert lineage_of(family[2], family).is_empty
    assert lineage_of(with_notes(3, heal_parent=3.0), [with_notes(3, heal_parent=3.0)]).is_empty


def test_notes_and_origins_that_name_no_trial_are_passed_over() -> None:
    odd = [with_notes(0, heal_parent="1"), with_notes(1, "refine:x"), with_notes(2, heal_parent=0.5)]
    assert all(lineage_of(trial, odd).is_empty for trial in odd)


def test_trials_with_one_healing_know_of_each_other() -> None:
    first = replace(asked(0), plan_hash="abc")
    others = [with_notes(1, heal_shared_run="abc"), with_notes(2, heal_shared_run="abc"), asked(3)]
    assert lineage_of(others[0], [first, *others]).sharing == (0, 2)
    assert lineage_of(others[2], [first, *others]).is_empty
