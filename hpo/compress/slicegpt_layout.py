"""The residual stream of a model as plans see it: who reads and writes it, and what each basis holds.

Needs no torch. Letters: L layers, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hpo.compress.allocate import tail_energy
from hpo.compress.architecture import SMALLEST_SIDE, Architecture, EmbeddingShape
from hpo.compress.layer_plan import LayerPlan
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.slicegpt_plan import Rotations, Side, SlicedStream, sliced
from hpo.errors import Unsupported

SIDES: tuple[Side, ...] = ("reads", "writes")
BASIS, REFUSED, NORMS = "basis", "refused", "norms"
"""Names of the arrays, see `Layout.of`."""

_TOLERANCE = 1e-9
"""Of a width, so that a share such as 0.7 of 10 is 7."""


@dataclass(frozen=True)
class Role:
    """What a layer has to do with the stream."""

    side: Side
    basis: int
    """Which basis it reads or writes, in order of the norms."""
    has_bias: bool

    def to_array(self) -> Array:
        return np.array([SIDES.index(self.side), self.basis, self.has_bias], dtype=float)

    @classmethod
    def from_array(cls, values: Array) -> "Role":
        side, basis, has_bias = (int(value) for value in values)
        return cls(SIDES[side], basis, bool(has_bias))


@dataclass(frozen=True)
class Layout:
    """Of one model, in one choice of bases."""

    architecture: Architecture
    rotations: Rotations
    roles: Mapping[str, Role]
    """By layer."""
    eigenvalues: tuple[Array, ...]
    """Of each basis, descending, (D,): the energy that its directions hold."""
    norms: int
    """Of the whole width."""
    refusal: str = ""
    """Why the model cannot be sliced; empty where it can."""

    @classmethod
    def of(cls, architecture: Architecture, rotations: Rotations, arrays: Mapping[str, Array]) -> "Layout":
        """Read it off the arrays that `hpo.compress.slicegpt_bases` prepares: ``basis@0``, ...; ``norms``,
        their number; a role by layer; or ``refused@`` and the reason."""
        refused = [key.partition("@")[2] for key in arrays if key.startswith(f"{REFUSED}@")]
        if refused:
            return cls(architecture, rotations, {}, (), 0, refused[0])
        count = sum(key.startswith(f"{BASIS}@") for key in arrays)
        return cls(
            architecture,
            rotations,
            {layer.name: Role.from_array(arrays[layer.name]) for layer in architecture.layers},
            tuple(np.asarray(arrays[f"{BASIS}@{number}"]) for number in range(count)),
            int(arrays[NORMS][0]),
        )

    @property
    def dense_width(self) -> int:
        return len(self.eigenvalues[0])

    def width(self, keep_ratio: float, multiple: int) -> int:
        """Return the largest multiple, or of its half and so on where there is no room for one, that is at
        most such a share of the dense width.

        Raises:
            Unsupported: the model cannot be sliced, or less is left than makes a layer.
        """
        if self.refusal:
            raise Unsupported(f"slicegpt: {self.refusal}", "choose another method of the stage prune")
        room = keep_ratio * self.dense_width + _TOLERANCE
        while multiple > max(room, 1):
            multiple //= 2
        width = int(room // multiple) * multiple
        if width < SMALLEST_SIDE:
            raise Unsupported(
                f"slicegpt: keep_ratio={keep_ratio:g} leaves {width} of {self.dense_width} directions",
                f"allowed: {SMALLEST_SIDE / self.dense_width:.3g} and more, which leaves {SMALLEST_SIDE}",
            )
        return width

    def plans(self, width: int) -> tuple[LayerPlan, ...]:
        """Return the plan of every layer."""
        if width not in self._plans:
            self._plans[width] = tuple(
                sliced(x.out_features, x.in_features, role.side, width, self.rotations, role.has_bias)
                for x in self.architecture.layers
                for role in (self.roles[x.name],)
            )
        return self._plans[width]

    def stream(self, width: int) -> SlicedStream:
        """Return the plan of everything else."""
        shape = self.architecture.embedding
        assert isinstance(shape, EmbeddingShape)
        return SlicedStream(shape.vocabulary, self.dense_width, width, shape.tied, self.norms, self.rotations)

    def damage(self, width: int) -> Array:
        """Return, for every layer, the root of the share of energy that the basis it reads or writes loses,
        (L,)."""
        lost = np.array([tail[width] for tail in self._tails])
        return np.asarray(np.sqrt(lost[self._bases]))

    @cached_property
    def _plans(self) -> dict[int, tuple[LayerPlan, ...]]:
        """By width: a search plans thousands of candidates."""
        return {}

    @cached_property
    def _tails(self) -> Sequence[Array]:
        """Share of energy lost at each width, 0 to D."""
        return [tail_energy(np.sqrt(values)) for values in self.eigenvalues]

    @cached_property
    def _bases(self) -> list[int]:
        return [self.roles[layer.name].basis for layer in self.architecture.layers]


_LAYOUTS: dict[tuple[str, str], Layout] = {}


def layout_of(profile: ModelProfile, rotations: Rotations) -> Layout:
    """Return the layout of a model, made once.

    Raises:
        HpoError: the profile was made without the bases.
    """
    name = preparation_name(rotations)
    key = (profile.key, name)
    if key not in _LAYOUTS:
        _LAYOUTS[key] = Layout.of(profile.architecture, rotations, profile.prepared(name))
    return _LAYOUTS[key]


def preparation_name(rotations: Rotations) -> str:
    """Return the name under which bases are prepared."""
    return f"slicegpt-{rotations}"
