"""Where something stands that takes many steps, so that it can be written down and taken up again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor

from hpo.errors import HpoError


class Misfit(HpoError):
    """A snapshot is of something else than what is to be taken up from it."""


@dataclass(frozen=True)
class Snapshot:
    """Tensors by name, and facts that JSON can hold. The tensors are those in use, not copies."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def joined(cls, **parts: Self) -> Self:
        """Return one snapshot of several parts, each of which `part` gives back."""
        tensors = {f"{name}/{key}": t for name, part in parts.items() for key, t in part.tensors.items()}
        return cls(tensors, {name: dict(part.facts) for name, part in parts.items()})

    @classmethod
    def listed(cls, tensors: Sequence[Tensor]) -> Self:
        """Return a snapshot of tensors in an order, named by their places."""
        return cls({str(place): tensor for place, tensor in enumerate(tensors)})

    def part(self, name: str) -> "Snapshot":
        """Return a part by its name.

        Raises:
            Misfit: there is none.
        """
        facts = self.fact(name)
        if not isinstance(facts, Mapping):
            raise Misfit(f"{name} is {facts!r}, which is no part")
        begin = f"{name}/"
        own = {k.removeprefix(begin): t for k, t in self.tensors.items() if k.startswith(begin)}
        return Snapshot(own, facts)

    def fact(self, name: str) -> Any:
        """Return a fact.

        Raises:
            Misfit: there is none of that name.
        """
        if name not in self.facts:
            raise Misfit(f"it says nothing of {name}, only of {', '.join(self.facts) or 'nothing'}")
        return self.facts[name]

    def like(self, wanted: Sequence[Tensor]) -> list[Tensor]:
        """Return the tensors of a snapshot made by `listed`, which take the place of those `wanted`.

        Raises:
            Misfit: there are more or fewer, or one has another shape or type.
        """
        found = [self.tensors.get(str(place)) for place in range(len(self.tensors))]
        shapes = [None if t is None else (t.shape, t.dtype) for t in found]
        if shapes != [(t.shape, t.dtype) for t in wanted]:
            raise Misfit(f"it holds {_sizes(found)}, where {_sizes(wanted)} are wanted")
        return [tensor for tensor in found if tensor is not None]


def _sizes(tensors: Sequence[Tensor | None]) -> str:
    return f"{len(tensors)} tensors of {sum(0 if t is None else t.numel() for t in tensors)} numbers"
