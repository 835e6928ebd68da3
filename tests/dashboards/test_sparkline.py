"""The hypervolume of a study as small as a word."""

from urllib.parse import unquote

import pytest

from dashboards.sparkline import HEIGHT, WIDTH, spark_points, spark_words, sparkline


def test_the_line_is_as_worked_out_by_hand() -> None:
    # 116 pixels for 4 trials, 24 pixels for a hypervolume of 0.5, from (2, 26) on; y grows downwards.
    points = spark_points([(1, 0.25), (4, 0.5)])
    assert points == ((2, 26), (31, 26), (31, 14), (118, 14), (118, 2))


def test_the_line_stays_in_the_image() -> None:
    points = spark_points([(n, n / 200) for n in range(1, 100)])
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)


def test_a_hypervolume_of_nothing_is_a_flat_line() -> None:
    assert {y for _, y in spark_points([(3, 0.0), (9, 0.0)])} == {26.0}


@pytest.mark.parametrize(
    ("course", "said"),
    [
        ((), "no hypervolume yet"),
        (((1, 0.25),), "hypervolume: 25.0 % after 1 trial"),
        (
            ((2, 0.1), (9, 0.2), (30, 0.625)),
            "hypervolume: from 10.0 % after 2 trials to 62.5 % after 30 trials",
        ),
    ],
)
def test_the_image_says_in_words_what_it_shows(course: tuple[tuple[int, float], ...], said: str) -> None:
    assert spark_words(course) == said


def test_the_image_is_a_drawing_in_its_own_address() -> None:
    image = sparkline(((1, 0.25), (4, 0.5)))
    assert image is not None
    shown = image.to_plotly_json()["props"]
    address = shown["src"]
    assert address.startswith("data:image/svg+xml,")
    assert 'points="2.0,26.0 31.0,26.0 31.0,14.0 118.0,14.0 118.0,2.0"' in unquote(address)
    assert shown["alt"] == "hypervolume: from 25.0 % after 1 trial to 50.0 % after 4 trials"


def test_without_a_course_there_is_no_image() -> None:
    assert sparkline(()) is None
