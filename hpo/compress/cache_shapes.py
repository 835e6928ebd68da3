"""What the blocks of a planned model add to its key-value cache. Needs no torch."""

from collections.abc import Iterable
from dataclasses import replace

from hpo.compress.cache_plan import CacheShape
from hpo.compress.composed_plan import Composed
from hpo.compress.encoded_plan import Encoded
from hpo.compress.layer_plan import LayerPlan
from hpo.compress.modegpt_plan import Narrow
from hpo.compress.plan import Plan
from hpo.compress.prune_plan import Trimmed
from hpo.compress.sparse_plan import Sparse


def cache_shapes(plan: Plan) -> tuple[CacheShape, ...]:
    """Return what each block adds to the cache: fewer heads, or smaller ones, where they were cut; those
    that are gone are left out."""
    layers: dict[int, list[LayerPlan]] = {}
    for shape, layer in plan.named():
        if shape.group == "attention":
            layers.setdefault(shape.block, []).append(layer)
    found = (_cut(shape, map(_cutting, layers.get(shape.block, ()))) for shape in plan.architecture.cache)
    return tuple(shape for shape in found if shape.heads)


def kv_cache_bytes(plan: Plan, tokens: int) -> int:
    """Return the bytes of keys and values of one sequence of so many tokens."""
    bits = plan.architecture.weight_bits
    if plan.cache is None:
        return sum(shape.bytes(tokens, bits) for shape in cache_shapes(plan))
    return sum(plan.cache.bytes(shape, tokens, bits) for shape in cache_shapes(plan))


def _cutting(layer: LayerPlan) -> LayerPlan:
    """Return what made a layer smaller, if anything did."""
    while True:
        if isinstance(layer, Composed):
            layer = layer.outer
        elif isinstance(layer, Encoded | Sparse):
            layer = layer.inner
        else:
            return layer


def _cut(shape: CacheShape, layers: Iterable[LayerPlan]) -> CacheShape:
    for layer in layers:
        if isinstance(layer, Narrow):
            (key, value, _), (keys, values, _) = layer.cut.kept, layer.cut.dense
            return replace(
                shape, key_size=shape.key_size * key // keys, value_size=shape.value_size * value // values
            )
        if isinstance(layer, Trimmed):
            return replace(shape, heads=shape.heads * layer.cut.kept[0] // layer.cut.dense[0])
        if layer.kind == "removed":
            return replace(shape, heads=0)
    return shape
