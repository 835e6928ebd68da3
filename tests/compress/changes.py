"""Candidates that every contract test goes through, stage by stage: a line a method, and compositions."""

from typing import Any

Knobs = dict[str, Any]

PRUNE: dict[str, list[Knobs]] = {}
SPARSIFY: dict[str, list[Knobs]] = {}
QUANTIZE: dict[str, list[Knobs]] = {
    "rtn": [
        {"bits": 8, "group_size": 0},
        {"bits": 4, "group_size": 16},
        {"bits": 3, "group_size": 32, "last_group": "short", "symmetric": False},
        {"bits": 4, "group_size": 16, "correction": 0.2},
    ]
}
STAGES = {"prune": PRUNE, "sparsify": SPARSIFY, "quantize": QUANTIZE}

COMPOSITIONS: list[dict[str, Any]] = [
    {"factorise": "whitened_svd", "factorise.keep_ratio": 0.6, "quantize": "rtn", "quantize.group_size": 16},
    {"factorise": "modegpt", "factorise.keep_ratio": 0.6, "quantize": "rtn", "quantize.group_size": 0},
    {
        "factorise": "modegpt",
        "factorise.keep_ratio": 0.7,
        "quantize": "rtn",
        "quantize.group_size": 0,
        "quantize.correction": 0.3,
    },
    {"embed": "tt_embedding", "embed.keep_ratio": 0.5, "quantize": "rtn", "quantize.group_size": 16},
]
"""Of several stages."""


def alone(stage: str, method: str, knobs: Knobs) -> dict[str, Any]:
    """Return the values of a candidate that uses one stage."""
    return {stage: method, **{f"{stage}.{name}": value for name, value in knobs.items()}}


ALONE = [
    alone(stage, method, knobs)
    for stage, table in STAGES.items()
    for method, many in table.items()
    for knobs in many
]
CASES = ALONE + COMPOSITIONS
