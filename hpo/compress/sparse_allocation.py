"""Which pattern of zeros each layer of a model gets. Letters: B blocks."""

from collections.abc import Sequence

import numpy as np

from hpo.compress.layer_plan import LayerPlan
from hpo.compress.outliers import Outliers, spread_out
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.selection import selected
from hpo.compress.sparse_pattern import Pattern, Unstructured
from hpo.compress.sparsify_knobs import SparsifyKnobs
from hpo.errors import Unsupported

SPARSITY_STEP = 0.02
"""What one step of a `shift` takes off the share of a layer's weights that become zero."""


def patterns(
    profile: ModelProfile, knobs: SparsifyKnobs, layers: Sequence[LayerPlan]
) -> list[Pattern | None]:
    """Return the pattern of every layer; None for those that get no zeros.

    Raises:
        Unsupported: the model has no layers such as are asked for, a layer would have no weight left, or
            there are not as many steps of a shift as layers.
    """
    names = selected(profile.architecture, knobs)
    is_chosen = [
        shape.name in names and len(layer.matrices) > 0
        for shape, layer in zip(profile.shapes, layers, strict=True)
    ]
    sparsities = None
    if knobs.allocation == "owl":
        sparsities = _by_block(profile, knobs, layers, is_chosen)
    steps = knobs.steps(len(layers)).tolist()
    known: dict[tuple[str, int, int], Pattern | None] = {}
    found: list[Pattern | None] = []
    for shape, chosen, step in zip(profile.shapes, is_chosen, steps, strict=True):
        place = (shape.group, -1 if sparsities is None else shape.block, step)
        if place not in known:
            sparsity = knobs.sparsity if sparsities is None else float(sparsities[shape.block])
            known[place] = _pattern(knobs, shape.group, sparsity, step)
        found.append(known[place] if chosen else None)
    return found


def _by_block(
    profile: ModelProfile, knobs: SparsifyKnobs, layers: Sequence[LayerPlan], is_chosen: Sequence[bool]
) -> Array:
    """Return the sparsity of every block, (B,), whose mean over the weights chosen is what is asked for."""
    shares = profile.prepared(Outliers(knobs.outlier).name)["blocks"]
    weights = [
        sum(rows * columns for rows, columns in layer.matrices) if chosen else 0
        for layer, chosen in zip(layers, is_chosen, strict=True)
    ]
    blocks = [shape.block for shape in profile.shapes]
    assert knobs.sparsity is not None
    held = np.zeros(len(shares))
    np.add.at(held, blocks, weights)
    return spread_out(knobs.sparsity, shares, held, knobs.spread)


def _pattern(knobs: SparsifyKnobs, group: str, sparsity: float | None, step: int) -> Pattern | None:
    times = knobs.attention if group == "attention" else knobs.mlp
    if not times:
        return None
    if sparsity is None or knobs.n_of_m is not None:
        return knobs.n_of_m
    shifted = times * sparsity - SPARSITY_STEP * step
    if not shifted < 1:
        by_shift = f", less {SPARSITY_STEP * step:g} by its shift" if step else ""
        raise Unsupported(
            f"a sparsity of {shifted:g} in {group} layers: {sparsity:g} times sparsify.{group}="
            f"{times:g}{by_shift}",
            "what comes of it is below 1: lower sparsity, the multiplier, the shift, or the spread",
        )
    return Unstructured(max(shifted, 0.0), knobs.is_by_row)
