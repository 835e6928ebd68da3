"""A comparison in words and table cells."""

from collections.abc import Sequence

from dash import dcc

from dashboards.comparing import Compared
from dashboards.comparison import Comparison
from dashboards.elements import Children
from dashboards.routes import StudyRoute
from hpo.format import count_text, number_text, percent_text, value_text, words

SHARE_HEAD = (
    "study",
    "trials",
    "worker hours",
    "its front",
    "hypervolume",
    "on the front of all",
    "it alone",
    "lost without it",
)


def share_rows(comparison: Comparison) -> list[Sequence[Children]]:
    """Return a row for each study, and one for all of them together."""
    rows: list[Sequence[Children]] = [
        (
            dcc.Link(share.name, href=StudyRoute(share.name).path),
            f"{share.trials:,}",
            number_text(share.hours, 3),
            f"{share.front:,}",
            _percent(share.hypervolume),
            f"{share.given:,} of {comparison.union:,}",
            f"{share.alone:,}",
            "not known" if share.lost is None else f"{number_text(100 * share.lost, 2)} %",
        )
        for share in comparison.shares
    ]
    together = (
        "all together",
        f"{sum(share.trials for share in comparison.shares):,}",
        number_text(sum(share.hours for share in comparison.shares), 3),
        f"{comparison.union:,}",
        _percent(comparison.hypervolume),
        "",
        "",
        "",
    )
    return [*rows, together]


def _percent(share: float | None) -> str:
    return "not known" if share is None else percent_text(share)


def box_text(here: Compared) -> str:
    """Return what the hypervolumes are a share of, and what the columns count."""
    counted = (
        "Fronts are those in all objectives. On the front of all: different points on the front of all "
        "trials together that the study has, alone or beside others. Lost without it: hypervolume."
    )
    box = here.comparison.box if here.comparison else None
    if box is None:
        return f"There is no box yet: it takes anchors that one of the studies has measured. {counted}"
    corner = ", ".join(
        f"{words(o.metric)} {value_text(o.loss(at), o.about.unit)}"
        for o, at in zip(here.objectives, box.reference, strict=True)
    )
    return (
        f"Hypervolume: share of one box for all. Its reference point is in each objective the most generous "
        f"of the studies' own ({corner}). {counted}"
    )


def cut_text(here: Compared) -> str:
    """Return what the studies are cut to."""
    view = here.view
    if view.cut == "all" or view.at is None:
        return "Each study with all of its finished trials."
    hours = view.cut == "hours"
    at, most = (
        f"{number_text(spent, 3)} worker hours" if hours else count_text(int(spent), "trial")
        for spent in (view.at, here.matched)
    )
    beyond = "" if view.at <= here.matched * (1 + 1e-9) else f" Some have less: all have {most}."
    return f"Each study as it was after {at}.{beyond}"
