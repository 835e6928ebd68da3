"""The order of a candidate's stages: the usual one, or the one it names; and which orders make no sense."""

from collections.abc import Sequence

from hpo.errors import Unsupported, did_you_mean

STAGES = ("train", "prune", "embed", "factorise", "sparsify", "heal", "quantize", "cache")
"""In the order in which they are applied unless a candidate says otherwise. Rounding comes last, so that
healing trains what is not rounded yet; the cache is no weight, so its place is of no matter."""

ORDER = "order"
"""The parameter that names another order, as in ``prune > factorise > quantize > heal``."""

_RULES: tuple[tuple[str, str, str], ...] = (
    ("train", "prune", "training changes the dense model before anything is compressed"),
    ("train", "embed", "training changes the dense model before anything is compressed"),
    ("train", "factorise", "training changes the dense model before anything is compressed"),
    ("train", "sparsify", "training changes the dense model before anything is compressed"),
    ("train", "heal", "training changes the dense model before anything is compressed"),
    ("train", "quantize", "training changes the dense model before anything is compressed"),
    ("prune", "embed", "an embedding in cores has no columns that could be removed with the model's width"),
    ("prune", "factorise", "factors have no heads, units or blocks that could be removed"),
    ("prune", "sparsify", "a mask is for the rows and columns that stay"),
    ("prune", "heal", "a model that was healed with what is removed later would have to be healed again"),
    ("prune", "quantize", "rows and columns of a matrix in few bits cannot be removed"),
    ("factorise", "sparsify", "factors of a sparse matrix are not sparse: its zeros would be lost"),
    ("factorise", "heal", "new factors would be made of the dense model's statistics, not the healed one's"),
    ("factorise", "quantize", "a matrix in few bits cannot be factorised (eora, caldera and lplr do both)"),
    ("embed", "heal", "the healed layers are fitted to the embedding that they had"),
    ("sparsify", "heal", "healing would be undone: weights are chosen to be zero after it"),
    ("sparsify", "quantize", "a matrix in few bits has no weights left that could be set to zero"),
)
"""(first, second, why): the second stage never comes before the first."""


def parsed(text: str) -> tuple[str, ...]:
    """Return the stages that an order names.

    Raises:
        Unsupported: a stage is unknown or named twice, or one comes before another that it depends on.
    """
    stages = tuple(word.strip() for word in text.split(">"))
    for stage in stages:
        if stage not in STAGES:
            raise Unsupported(f"order {text!r}: unknown stage {stage!r}", did_you_mean(stage, STAGES))
    if len(set(stages)) < len(stages):
        raise Unsupported(f"order {text!r} names a stage twice", "each stage is applied once at most")
    place = {stage: number for number, stage in enumerate(stages)}
    for first, second, why in _RULES:
        if first in place and second in place and place[second] < place[first]:
            raise Unsupported(f"order {text!r}: {second} before {first}", f"{why}; put {first} first")
    return stages


def sequence(chosen: Sequence[str], order: str | None) -> tuple[str, ...]:
    """Return the stages that a candidate uses, in the order in which they are applied.

    Raises:
        Unsupported: the order it names makes no sense, or leaves out a stage that it uses.
    """
    stages = STAGES if order is None else parsed(order)
    if missing := [stage for stage in chosen if stage not in stages]:
        raise Unsupported(
            f"order {order!r} leaves out {', '.join(missing)}", "name every stage that the candidate uses"
        )
    return tuple(stage for stage in stages if stage in chosen)
