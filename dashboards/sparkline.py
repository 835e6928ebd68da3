"""How the hypervolume of a study went, as small as a word.

A component cannot be an SVG drawing without trusting text as markup, so it is an image whose address is the
drawing itself; its alternative text says the same in words.
"""

from collections.abc import Sequence
from urllib.parse import quote

from dash import html

from dashboards import palette
from hpo.format import count_text, percent_text

WIDTH, HEIGHT = 120, 28
_EDGE = 2.0
"""Pixels that are kept free around the line, which is that thick."""

Course = Sequence[tuple[int, float]]
"""Final trials and the hypervolume after so many, as a share of the reference box; ascending."""


def spark_points(course: Course) -> tuple[tuple[float, float], ...]:
    """Return the corners of the line in pixels, from the upper left corner of the image.

    The hypervolume goes from 0 at the lower edge to its own maximum at the upper one, and stays what it is
    until the next front: a step at each. Trials go from 0 to the last of the course.
    """
    if not course:
        return ()
    last, top = max(course[-1][0], 1), max(share for _, share in course) or 1.0
    corners: list[tuple[float, float]] = []
    level = 0.0
    for trials, share in [(0, 0.0), *course]:
        x = _EDGE + (WIDTH - 2 * _EDGE) * trials / last
        corners += [(x, _height(level / top)), (x, _height(share / top))]
        level = share
    return tuple(dict.fromkeys(corners))


def _height(share: float) -> float:
    return _EDGE + (HEIGHT - 2 * _EDGE) * (1 - share)


def spark_words(course: Course) -> str:
    """Return what the line shows."""
    if not course:
        return "no hypervolume yet"
    (first, low), (last, high) = course[0], course[-1]
    end = f"{percent_text(high)} after {count_text(last, 'trial')}"
    begin = "" if len(course) == 1 else f"from {percent_text(low)} after {count_text(first, 'trial')} to "
    return f"hypervolume: {begin}{end}"


def sparkline(course: Course) -> html.Img | None:
    """Return the image; None where there is nothing to draw."""
    points = spark_points(course)
    if not points:
        return None
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    floor = _height(0)
    area = f"{points[0][0]:.1f},{floor:.1f} {line} {points[-1][0]:.1f},{floor:.1f}"
    drawing = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}">'
        f'<polygon points="{area}" fill="{palette.BLUE}" fill-opacity="0.25"/>'
        f'<polyline points="{line}" fill="none" stroke="{palette.BLUE}" stroke-width="2" '
        'stroke-linejoin="round"/></svg>'
    )
    address = f"data:image/svg+xml,{quote(drawing)}"
    return html.Img(
        src=address, alt=spark_words(course), width=str(WIDTH), height=str(HEIGHT), className="spark"
    )
