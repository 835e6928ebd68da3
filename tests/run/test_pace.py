import numpy as np
import pytest

from hpo.run.pace import Pace, freed


def timed(*asks: tuple[int, float]) -> Pace:
    pace = Pace()
    pace.note(1, 99.0)  # the first one, which is not believed
    for count, seconds in asks:
        pace.note(count, seconds)
    return pace


def test_the_seconds_of_an_ask_are_a_line_in_its_candidates() -> None:
    pace = timed((1, 1.5), (3, 2.5), (5, 3.5))
    assert pace.seconds(9) == pytest.approx(5.5)  # 1 s, and half a second each
    assert pace.batch == 18  # 1 s of 10 s


def test_one_odd_ask_does_not_move_the_estimate() -> None:
    pace = timed((1, 1.5), (2, 2.0), (3, 2.5), (4, 3.0), (5, 30.0))
    assert pace.seconds(2) == pytest.approx(2.0, rel=0.2)


def test_of_asks_of_one_size_a_fifth_is_taken_to_be_fixed() -> None:
    pace = timed((4, 2.0), (4, 2.0))
    assert pace.seconds(8) == pytest.approx(0.4 + 8 * 0.4)


def test_before_an_ask_is_timed_no_more_than_a_few_are_made_ahead() -> None:
    assert Pace().ahead([30.0], [29.0] * 64) == 8
    assert Pace().ahead([30.0], [20.0] * 64) == 0


def test_asks_that_cost_the_same_whatever_their_size_have_no_largest_batch() -> None:
    assert timed((1, 1.0), (8, 1.0)).batch is None


def test_a_trial_ends_like_those_that_lasted_as_long() -> None:
    assert freed([10.0] * 5, [9.0, 8.5, 5.0, 1.0], np.array([1.0, 2.0, 6.0])).tolist() == [1, 2, 3]
    assert freed([10.0] * 5, [11.0], np.array([0.1])).tolist() == [1]  # overdue
    assert freed([2.0, 4.0], [1.0], np.array([1.0])).tolist() == [1]  # a half, and a half of deviation
    tenths = [float(k) for k in range(1, 11)]
    assert freed(tenths, [0.0], np.array([1.0])).tolist() == [0]  # a tenth, and 0.3 of deviation


def test_nothing_is_made_ahead_where_an_ask_costs_less_than_a_fiftieth_of_a_trial() -> None:
    assert timed((1, 1.9)).cheap(100.0, 8)
    assert not timed((1, 2.1)).cheap(100.0, 8)


def test_many_workers_make_a_quick_ask_dear() -> None:
    pace = timed((1, 0.9), (2, 1.2), (3, 1.5))  # 0.6 s and 0.3 s each
    assert pace.cheap(50.0, 8)  # 1 slot in 6.25 s: 0.9 s
    assert not pace.cheap(50.0, 64)  # 1 slot in 0.78 s: 2 in 1.2 s


def test_as_many_are_made_ahead_as_slots_get_free_until_the_answer_after_next() -> None:
    pace = timed((1, 5.0), (8, 5.0))
    assert pace.ahead([100.0], [99.0, 91.0, 89.0, 5.0]) == 2  # over within 10 s


def test_asking_for_all_begins_as_early_as_it_takes_to_ask_for_all() -> None:
    pace = timed((1, 1.0), (2, 2.0), (3, 3.0))  # a second each
    assert pace.ahead([100.0], [85.0] * 8) == 8  # 15 s are less than twice 8 s
    assert pace.ahead([100.0], [83.0] * 8) == 0
    assert pace.ahead([100.0], [83.0] * 8 + [98.5]) == 9  # one more, which is due at once
