"""Candidates that every contract test goes through, stage by stage: a line a method, and compositions."""

from typing import Any

Knobs = dict[str, Any]

PRUNE: dict[str, list[Knobs]] = {
    "wanda_sp": [
        {"keep_ratio": 0.6},
        {"keep_ratio": 0.6, "structure": "global", "attention": 1.5, "mlp": 0.8, "floor": 0.3},
        {"keep_ratio": 0.8, "multiple": 8, "protect_last": 1, "compensate": True},
    ],
    "flap": [
        {"keep_ratio": 0.6},
        {"keep_ratio": 0.7, "structure": "uniform", "head_scores": "plain"},
        {"keep_ratio": 0.5, "compensate": False, "protect_first": 0},
    ],
    "llm_pruner": [
        {"keep_ratio": 0.6},
        {"keep_ratio": 0.6, "order": "second", "structure": "global", "compensate": True},
    ],
    "drop_blocks": [{"blocks": 1}, {"keep_ratio": 0.5, "protect_first": 1}],
    "slicegpt": [{"keep_ratio": 0.8}, {"keep_ratio": 0.6, "rotations": "shared", "multiple": 1}],
}
SPARSIFY: dict[str, list[Knobs]] = {
    "magnitude": [
        {"sparsity": 0.5},
        {"sparsity": 0.3, "compare": "row", "attention": 0.0, "mlp": 1.5, "store": "bitmap"},
        {"pattern": "4:8", "store": "n_m"},
        {"sparsity": 0.9, "store": "csr", "types": "down_proj", "last_block": 0},
    ],
    "wanda": [
        {"sparsity": 0.5},
        {"pattern": "2:4", "store": "n_m"},
        {"sparsity": 0.6, "compare": "matrix", "allocation": "owl", "spread": 0.2, "outlier": 3},
    ],
    "sparsegpt": [
        {"sparsity": 0.5, "store": "csr"},
        {"pattern": "2:4", "store": "bitmap", "types": "mlp"},
        {"sparsity": 0.7, "damping": 0.1, "slice_columns": 7, "first_block": 1, "store": "bitmap"},
    ],
}
QUANTIZE: dict[str, list[Knobs]] = {
    "gptq": [
        {"group_size": 16},
        {"bits": 3, "group_size": 32, "last_group": "short", "symmetric": False, "act_order": False},
        {"bits": 2, "group_size": 0, "damping": 0.1, "clip": False, "correction": 0.2},
        {"group_size": 16, "allocation": "sensitivity", "mean_bits": 3.3},
    ],
    "awq": [
        {"group_size": 16},
        {"bits": 3, "group_size": 32, "last_group": "short", "symmetric": False, "clip": False},
        {"bits": 2, "group_size": 0, "alpha_steps": 5, "correction": 0.2},
        {"group_size": 16, "allocation": "sensitivity", "mean_bits": 5, "attention_bits": 3},
    ],
    "nf4": [
        {"group_size": 16},
        {"group_size": 0, "double": True, "correction": 0.2},
        {"group_size": 32, "last_group": "short", "double": True},
    ],
    "squeezellm": [
        {"bits": 4, "outliers": 0.0, "sensitive": 0.0},
        {"bits": 3, "outliers": 0.02, "sensitive": 0.01},
        {"bits": 2, "outliers": 0.1, "correction": 0.2},
    ],
    "ternary": [{}, {"group_size": 16, "scale": "absmean"}, {"group_size": 32, "last_group": "short"}],
    "int8": [{}, {"correction": 0.2}],
    "rtn": [
        {"bits": 8, "group_size": 0},
        {"bits": 4, "group_size": 16},
        {"bits": 3, "group_size": 32, "last_group": "short", "symmetric": False},
        {"bits": 4, "group_size": 16, "correction": 0.2},
        {"bits": 3, "group_size": 16, "attention_bits": 8, "mlp_bits": 2, "down_bits": 4},
        {"bits": 3, "group_size": 16, "allocation": "sensitivity"},
    ],
}
STAGES = {"prune": PRUNE, "sparsify": SPARSIFY, "quantize": QUANTIZE}

COMPOSITIONS: list[dict[str, Any]] = [
    {"prune": "wanda_sp", "prune.keep_ratio": 0.7, "factorise": "whitened_svd", "factorise.keep_ratio": 0.6},
    {
        "prune": "flap",
        "prune.keep_ratio": 0.7,
        "factorise": "svd",
        "factorise.keep_ratio": 0.6,
        "quantize": "rtn",
        "quantize.group_size": 0,
    },
    {"prune": "llm_pruner", "prune.keep_ratio": 0.7, "factorise": "mpo", "factorise.keep_ratio": 0.5},
    {
        "prune": "flap",
        "prune.keep_ratio": 0.6,
        "quantize": "rtn",
        "quantize.group_size": 0,
        "quantize.correction": 0.2,
    },
    {"prune": "flap", "prune.keep_ratio": 0.6, "sparsify": "wanda", "sparsify.sparsity": 0.5},
    {"prune": "drop_blocks", "prune.blocks": 1, "factorise": "svd", "factorise.keep_ratio": 0.6},
    {"prune": "drop_blocks", "prune.blocks": 1, "quantize": "rtn", "quantize.group_size": 16},
    {"prune": "drop_blocks", "prune.blocks": 1, "embed": "tt_embedding", "embed.keep_ratio": 0.5},
    {
        "factorise": "whitened_svd",
        "factorise.keep_ratio": 0.6,
        "sparsify": "sparsegpt",
        "sparsify.sparsity": 0.4,
        "sparsify.store": "bitmap",
    },
    {
        "factorise": "whitened_svd",
        "factorise.keep_ratio": 0.6,
        "sparsify": "wanda",
        "sparsify.sparsity": 0.4,
        "quantize": "rtn",
        "quantize.group_size": 16,
    },
    {"sparsify": "wanda", "sparsify.sparsity": 0.5, "quantize": "rtn", "quantize.group_size": 16},
    {
        "sparsify": "wanda",
        "sparsify.pattern": "2:4",
        "sparsify.store": "n_m",
        "quantize": "rtn",
        "quantize.group_size": 16,
        "quantize.correction": 0.2,
    },
    {"factorise": "modegpt", "factorise.keep_ratio": 0.6, "sparsify": "wanda", "sparsify.sparsity": 0.5},
    {
        "factorise": "modegpt",
        "factorise.keep_ratio": 0.6,
        "sparsify": "sparsegpt",
        "sparsify.sparsity": 0.5,
        "sparsify.store": "bitmap",
        "quantize": "rtn",
        "quantize.group_size": 0,
    },
    {
        "factorise": "whitened_svd",
        "factorise.keep_ratio": 0.6,
        "quantize": "gptq",
        "quantize.group_size": 16,
        "quantize.allocation": "sensitivity",
        "quantize.mean_bits": 3.5,
    },
    {
        "factorise": "modegpt",
        "factorise.keep_ratio": 0.6,
        "quantize": "gptq",
        "quantize.group_size": 0,
        "quantize.correction": 0.3,
    },
    {"factorise": "whitened_svd", "factorise.keep_ratio": 0.6, "quantize": "awq", "quantize.group_size": 0},
    {"factorise": "whitened_svd", "factorise.keep_ratio": 0.6, "quantize": "nf4", "quantize.group_size": 0},
    {
        "factorise": "modegpt",
        "factorise.keep_ratio": 0.6,
        "quantize": "squeezellm",
        "quantize.bits": 2,
        "quantize.outliers": 0.05,
    },
    {"factorise": "whitened_svd", "factorise.keep_ratio": 0.6, "quantize": "ternary"},
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
    {
        "prune": "slicegpt",
        "prune.keep_ratio": 0.75,
        "factorise": "whitened_svd",
        "factorise.keep_ratio": 0.7,
        "quantize": "rtn",
        "quantize.group_size": 0,
    },
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
