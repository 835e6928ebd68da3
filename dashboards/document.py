"""A single HTML file that needs nothing else: style, figures and plotly.js are all inside.

Its Content-Security-Policy forbids every connection, and every script but the two whose hashes it
names; the figures are data, which no browser runs. So the file is safe to mail and to open, whatever
stands in a study.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import plotly.graph_objects as go
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from dashboards.figures import GRAPH_CONFIG

_STYLE = Path(__file__).parent / "assets" / "dashboard.css"

_DRAW = """
const drawn = JSON.parse(document.getElementById("figures").textContent);
const draw = (place) => {
  const figure = drawn.figures[place.id];
  if (!figure || place.classList.contains("js-plotly-plot")) return;
  Plotly.newPlot(place, figure.data, figure.layout, drawn.config);
};
const folded = "details:not([open])";
for (const place of document.querySelectorAll(".figure")) if (!place.closest(folded)) draw(place);
document.addEventListener("toggle", (event) => {
  for (const place of event.target.querySelectorAll(".figure")) if (!place.closest(folded)) draw(place);
}, true);
"""

_PAGE = Markup("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="figures">{figures}</script>
<script>{plotly}</script>
<script>{draw}</script>
</body>
</html>
""")


@dataclass(frozen=True)
class Part:
    """A part of a page, and the figures that are drawn in it, by name."""

    markup: tuple[Markup, ...] = ()
    figures: Mapping[str, go.Figure] = field(default_factory=dict)


def html_page(title: str, body: Iterable[Markup], figures: Mapping[str, go.Figure]) -> str:
    """Return the text of a page; each figure is drawn into the element whose id is its name."""
    plotly = get_plotlyjs()
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(plotly)} {_hash(_DRAW)}",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    page = _PAGE.format(
        policy=policy,
        title=title,
        style=Markup(_STYLE.read_text("utf-8")),  # noqa: S704 - a file of ours
        body=Markup("\n").join(body),
        figures=_data(figures),
        plotly=Markup(plotly),  # noqa: S704 - plotly's own file, which holds no "</script"
        draw=Markup(_DRAW),  # noqa: S704 - the constant above
    )
    return str(page)


def _hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _data(figures: Mapping[str, go.Figure]) -> Markup:
    plain = {name: json.loads(figure.to_json()) for name, figure in figures.items()}
    text = json.dumps({"figures": plain, "config": dict(GRAPH_CONFIG)}, separators=(",", ":"))
    # Inside a script element only "<" could end it; JSON may write it so.
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704


def section(title: str, *children: Markup) -> Markup:
    """Return a titled part of a page; `title` is text."""
    return Markup("<section><h2>{}</h2>\n{}</section>").format(title, Markup("\n").join(children))


def element(name: str, text: str, kind: str = "") -> Markup:
    """Return an element around a text, e.g. a paragraph; `kind` is its class."""
    opening = Markup("<{} class='{}'>").format(name, kind) if kind else Markup("<{}>").format(name)
    return opening + escape(text) + Markup("</{}>").format(name)


def pairs(values: Mapping[str, str], kind: str) -> Markup:
    """Return label -> value as ``tiles`` or ``facts``."""
    one = kind.removesuffix("s")
    items = [
        Markup("<div class='{}'><dt>{}</dt><dd>{}</dd></div>").format(one, k, v) for k, v in values.items()
    ]
    return Markup("<dl class='{}'>{}</dl>").format(kind, Markup().join(items))


def folding(title: str, *children: Markup, is_open: bool = False) -> Markup:
    """Return parts of a page behind their title, which opens them; figures are drawn when they are seen."""
    opening = Markup("<details open>") if is_open else Markup("<details>")
    return Markup("{}<summary>{}</summary>\n{}</details>").format(opening, title, Markup("\n").join(children))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """Return a table of texts that scrolls sideways where the screen is narrow."""
    body = Markup("\n").join(_row("td", row) for row in rows)
    return Markup(
        "<div class='scroll' tabindex='0'><table><thead>{}</thead><tbody>\n{}\n</tbody></table></div>"
    ).format(_head(head), body)


def _head(texts: Sequence[str]) -> Markup:
    cells = Markup().join(Markup("<th scope='col'>{}</th>").format(text) for text in texts)
    return Markup("<tr>{}</tr>").format(cells)


def _row(cell: str, texts: Sequence[str]) -> Markup:
    return Markup("<tr>{}</tr>").format(Markup().join(element(cell, text) for text in texts))


def bullets(texts: Iterable[str], kind: str) -> Markup:
    items = Markup().join(element("li", text) for text in texts)
    return Markup("<ul class='{}'>{}</ul>").format(kind, items)


def figure_place(name: str, label: str, *, is_wide: bool = False) -> Markup:
    """Return where the figure of this name is drawn; `label` says what it shows. A wide one scrolls sideways
    where the screen is narrow."""
    place = Markup("<div id='{}' class='figure' role='figure' aria-label='{}'></div>").format(name, label)
    return Markup("<div class='scroll wide-figure' tabindex='0'>{}</div>").format(place) if is_wide else place
