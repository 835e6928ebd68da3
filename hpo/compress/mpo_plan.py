"""Plans of layers held as matrix product operators."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import ClassVar, Literal, get_args

from hpo.compress.layer_plan import Costs, Dense, Shapes
from hpo.compress.mpo_sites import FEWEST, MOST, Factors, sites_of, written
from hpo.errors import Unsupported

Contraction = Literal["chain", "rebuild", "cached", "merged"]
"""How an MPO layer computes: core by core, by rebuilding W each call, from a W kept in memory, or by
merging the cores to two each call and going through these."""

Neurons = Literal["", "stored", "reordered"]
"""Whether the layer's neurons or heads are held in another order than the model stored them in. ``stored``
says that an order was asked for and that none was found that helps, or none is known to be safe."""

Link = tuple[int, int, int, int]

_CONTRACTIONS, _NEURONS = get_args(Contraction), get_args(Neurons)


@dataclass(frozen=True)
class Mpo:
    """A matrix product operator: cores of shape (bond, out_site, in_site, next bond), bonds 1 outside.

    Sites multiply to the layer's features; `bonds` are the inner bond dimensions, one fewer than sites.
    With contraction ``cached`` the rebuilt W stays in memory beside the cores.

    Raises:
        Unsupported: the numbers of sites and bonds do not fit together, or a bond is below 1 or above
            what its cut can carry between bonds such as its neighbours.
    """

    out_sites: Factors
    in_sites: Factors
    bonds: tuple[int, ...]
    contraction: Contraction = "rebuild"
    sweeps: int = 0
    """Sweeps over the cores that fit them to the layer's inputs."""
    factorisation: str = "ascending"
    """What the sites follow from; with `neurons` it names the cores that are sliced."""
    neurons: Neurons = ""
    costs: Costs = field(init=False, compare=False, repr=False)
    kind = "mpo"
    matrices: ClassVar[Shapes] = ()

    def __post_init__(self) -> None:
        self._check_sites()
        edges = (1, *self.bonds, 1)
        pairs = [o * i for o, i in zip(self.out_sites, self.in_sites, strict=True)]
        caps = bond_caps(self.out_sites, self.in_sites)
        for k, (bond, cap) in enumerate(zip(self.bonds, caps, strict=True)):
            most = min(cap, edges[k] * pairs[k], pairs[k + 1] * edges[k + 2])
            if not 1 <= bond <= most:
                sites = f"{self.out_sites} x {self.in_sites}"
                raise Unsupported(f"bond dimension {bond} on sites {sites}", f"allowed: 1 to {most}")
        object.__setattr__(self, "costs", self._counted())

    def _check_sites(self) -> None:
        count = len(self.out_sites)
        if not FEWEST <= count <= MOST or len(self.in_sites) != count or len(self.bonds) != count - 1:
            raise Unsupported(
                f"{count} out sites, {len(self.in_sites)} in sites and {len(self.bonds)} bonds",
                f"allowed: {FEWEST} to {MOST} sites, as many in as out, and one bond fewer",
            )
        if min(*self.out_sites, *self.in_sites) < 1 or self.sweeps < 0:
            raise Unsupported(
                f"sites {written(self.out_sites, self.in_sites)} and {self.sweeps} sweeps",
                "allowed: sites of 1 and more, no sweeps or more",
            )
        if self.contraction not in _CONTRACTIONS or self.neurons not in _NEURONS:
            raise Unsupported(
                f"contraction {self.contraction!r} with neurons {self.neurons!r}",
                f"allowed: {_CONTRACTIONS} with {_NEURONS}",
            )

    def _counted(self) -> Costs:
        dense = self.out_features * self.in_features
        cores = parameters_of(self.out_sites, self.in_sites, self.bonds)
        per_token, per_call = dense, 0
        if self.contraction == "chain":
            per_token = chain_macs(self.links)
        elif self.contraction == "merged":
            halves = self.links[: self.cut], self.links[self.cut :]
            per_token = chain_macs([merged(half) for half in halves])
            per_call = sum(map(merging_macs, halves))
        elif self.contraction == "rebuild":
            per_call = merging_macs(self.links)
        return Costs(
            key=self._key(),
            size=self._size(),
            parameters=cores,
            resident=cores + (dense if self.contraction == "cached" else 0),
            macs_per_token=per_token,
            macs_per_call=per_call,
        )

    def _key(self) -> str:
        swept = f"s{self.sweeps}" if self.sweeps else ""
        order = "o" if self.neurons == "reordered" else ""
        return f"m{self.out_sites}{self.in_sites}{self.bonds}{self.contraction}{swept}{order}"

    def _size(self) -> str:
        outs, ins = written(self.out_sites, self.in_sites).split(":")
        swept = f", {self.sweeps} sweeps" if self.sweeps else ""
        order = {"": "", "stored": ", neurons as stored", "reordered": ", neurons reordered"}[self.neurons]
        return f"bonds {', '.join(map(str, self.bonds))} on {outs} by {ins}{swept}{order}"

    @property
    def out_features(self) -> int:
        return prod(self.out_sites)

    @property
    def in_features(self) -> int:
        return prod(self.in_sites)

    @property
    def links(self) -> tuple[Link, ...]:
        """Shapes of the cores."""
        edges = (1, *self.bonds, 1)
        return tuple(zip(edges[:-1], self.out_sites, self.in_sites, edges[1:], strict=True))

    @property
    def cut(self) -> int:
        """How many cores are in the first of the two that ``merged`` makes: as many as cost least."""
        return min(
            range(1, len(self.links)),
            key=lambda k: chain_macs([merged(self.links[:k]), merged(self.links[k:])]),
        )

    @property
    def prepared(self) -> str:
        """Name of the preparation whose cores are sliced."""
        return basis_name(len(self.out_sites), self.factorisation, self.neurons == "reordered")

    @property
    def prepared_as_stored(self) -> str:
        """The same in the order that the model stores."""
        return basis_name(len(self.out_sites), self.factorisation)


@lru_cache(maxsize=4096)
def basis_name(sites: int, factorisation: str, reordered: bool = False) -> str:
    """Return the name of the cached cores on given sites; a path on every system."""
    words = factorisation.replace(" ", "").replace(":", "by").replace(",", "-")
    return f"mpo{sites}-{words}{'-reordered' if reordered else ''}"


def merged(links: Sequence[Link]) -> Link:
    """Return the shape of neighbouring cores contracted to one."""
    return links[0][0], prod(x[1] for x in links), prod(x[2] for x in links), links[-1][3]


def merging_macs(links: Sequence[Link]) -> int:
    """Return the multiply-accumulates of contracting neighbouring cores to one, from the left."""
    return sum(prod(merged(links[:k])) * prod(links[k][1:]) for k in range(1, len(links)))


def chain_macs(links: Sequence[Link]) -> int:
    """Return the multiply-accumulates a token of going through the cores one by one, from the left."""
    macs, outs, ins = 0, 1, prod(i for _, _, i, _ in links)
    for left, o, i, right in links:
        ins //= i
        macs += outs * left * i * o * right * ins
        outs *= o
    return macs


def parameters_of(outs: Factors, ins: Factors, bonds: Sequence[int]) -> int:
    """Return the weights that cores hold."""
    edges = (1, *bonds, 1)
    return sum(
        left * o * i * right for left, o, i, right in zip(edges[:-1], outs, ins, edges[1:], strict=True)
    )


@lru_cache(maxsize=1 << 18)
def mpo(
    out_features: int,
    in_features: int,
    sites: int,
    bonds: int | tuple[int, ...],
    contraction: Contraction = "rebuild",
    *,
    sweeps: int = 0,
    factorisation: str = "ascending",
    neurons: Neurons = "",
) -> Dense | Mpo:
    """Return the MPO plan of a layer; dense where the cores would not be smaller.

    One bond dimension serves every cut, clipped to its cap; a tuple is taken as it is.

    Raises:
        Unsupported: named factors do not multiply to the layer, or a bond of the tuple is too large.
    """
    outs, ins = sites_of(out_features, in_features, sites, factorisation)
    if isinstance(bonds, int):
        bonds = tuple(min(bonds, cap) for cap in bond_caps(outs, ins))
    found = Mpo(outs, ins, bonds, contraction, sweeps, factorisation, neurons)
    return found if found.costs.parameters < out_features * in_features else Dense(out_features, in_features)


@lru_cache(maxsize=4096)
def bond_caps(out_sites: Factors, in_sites: Factors) -> tuple[int, ...]:
    """Return the largest useful bond dimension at each cut: the smaller side of that unfolding."""
    pairs = [o * i for o, i in zip(out_sites, in_sites, strict=True)]
    return tuple(min(prod(pairs[:k]), prod(pairs[k:])) for k in range(1, len(pairs)))
