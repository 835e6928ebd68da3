"""The table of all trials of a study, to sort and filter in the browser."""

from typing import Any

import dash_ag_grid as dag

from hpo.format import words
from hpo.study import Study

_LETTER_PX = 8
_CELL_PX = 44


def trial_columns(study: Study) -> list[dict[str, Any]]:
    """Return the grid's columns; those with numbers are sorted and filtered by number."""
    number = {"field": "number", "headerName": "trial", "pinned": "left", "sort": "desc"}
    return [
        number | {"filter": "agNumberColumnFilter", "width": 100},
        _text("state", 23),
        _text("standing", 17),
        *(_numbers(o.metric, words(o.metric), 20 + 11 * o.allow_modelled) for o in study.objectives),
        _text("origin", 15),
        _numbers("seconds", "worker time", 11),
        _text("recipe", 60) | {"tooltipField": "recipe"},
    ]


def _text(field: str, letters: int) -> dict[str, Any]:
    """Return a column of words in which so many letters have room."""
    return {"field": field, "headerName": field, "width": _CELL_PX + _LETTER_PX * letters}


def _numbers(field: str, title: str, letters: int) -> dict[str, Any]:
    return {
        "field": field,
        "headerName": title,
        "filter": "agNumberColumnFilter",
        "type": "rightAligned",
        "width": _CELL_PX + _LETTER_PX * letters,
        # Parsed by the grid's own small evaluator, not by the browser; `field` is a name of ours.
        "valueFormatter": {"function": f"params.data.{field}_text"},
    }


def trial_grid(name: str, study: Study) -> dag.AgGrid:
    """Return the table, which the browser fills; `name` is its id. A click or the space bar selects a row."""
    return dag.AgGrid(
        id=name,
        rowData=[],
        columnDefs=trial_columns(study),
        defaultColDef={"filter": "agTextColumnFilter", "sortable": True, "resizable": True},
        getRowId="params.data.id",
        dashGridOptions={
            "rowSelection": {"mode": "singleRow", "enableClickSelection": True, "checkboxes": False},
            "localeText": {"noRowsToShow": "No trial yet."},
            "animateRows": False,
        },
        className="trial-table",
        style={"height": "min(75vh, 640px)"},
    )
