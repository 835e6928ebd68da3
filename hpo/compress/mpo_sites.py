"""Site factorisations: how the features of a layer are split among the cores of a matrix product operator.

A rule covers every layer of every model. With features 4096, 3 sites (`out` by `in`)::

    balanced      16x16x16 by 16x16x16     each core about as large as the others: out factors ascend, in
                                           factors descend (352 by 128: 4x8x11 by 8x4x4)
    ascending     small factors first, both ways
    descending    large factors first, both ways
    skewed        2x2x1024 by 1024x2x2     out factors as unequal as they come, in factors the other way
                                           round: near to two thin matrices, hence cheap core by core

Instead of a rule, factors may be named for each shape of a model: ``8x16:16x8, 16x22:16x8``, out before in.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from math import prod

from hpo.errors import Unsupported

Factors = tuple[int, ...]
RULES = ("balanced", "ascending", "descending", "skewed")
FEWEST, MOST = 2, 4
"""Sites of an operator."""

_ENTRY = re.compile(r"[1-9]\d*(x[1-9]\d*)+:[1-9]\d*(x[1-9]\d*)+", re.ASCII)


@lru_cache(maxsize=4096)
def sites_of(
    out_features: int, in_features: int, sites: int, factorisation: str = "ascending"
) -> tuple[Factors, Factors]:
    """Return the out and in factors of a layer, `sites` of each, by a rule or by named factors.

    Raises:
        Unsupported: the named factors do not multiply to the layer.
    """
    if factorisation not in RULES:
        return _named_sites(out_features, in_features, factorisation)
    if factorisation == "skewed":
        return skewed_sites(out_features, sites), skewed_sites(in_features, sites)[::-1]
    outs, ins = balanced_sites(out_features, sites), balanced_sites(in_features, sites)
    return {"balanced": (outs, ins[::-1]), "ascending": (outs, ins), "descending": (outs[::-1], ins[::-1])}[
        factorisation
    ]


def _named_sites(out_features: int, in_features: int, factorisation: str) -> tuple[Factors, Factors]:
    for outs, ins in named_factors(factorisation):
        if (prod(outs), prod(ins)) == (out_features, in_features):
            return outs, ins
    count = len(named_factors(factorisation)[0][0])
    example = written(*sites_of(out_features, in_features, count))
    raise Unsupported(
        f"no factors for a layer of {out_features} x {in_features} in {factorisation!r}",
        f"add {example!r} or the like, or name a rule: {', '.join(RULES)}",
    )


@lru_cache(maxsize=256)
def named_factors(factorisation: str) -> tuple[tuple[Factors, Factors], ...]:
    """Read named factors, one pair (out, in) an entry.

    Raises:
        ValueError: they are not written as ``8x16:16x8, ...``, or have not 2 to 4 sites everywhere.
    """
    pairs = []
    for entry in factorisation.replace(" ", "").split(","):
        if not _ENTRY.fullmatch(entry):
            raise ValueError(
                f"{entry!r} is neither a rule ({', '.join(RULES)}) nor factors such as '8x16:16x8'"
            )
        outs, ins = (tuple(map(int, side.split("x"))) for side in entry.split(":"))
        pairs.append((outs, ins))
    counts = {len(factors) for pair in pairs for factors in pair}
    if len(counts) != 1 or not FEWEST <= min(counts) <= MOST:
        raise ValueError(
            f"{factorisation!r} has {' and '.join(map(str, sorted(counts)))} sites; "
            f"allowed: {FEWEST} to {MOST}, as many in as out, the same for every shape"
        )
    return tuple(pairs)


def count_of(sites: int, factorisation: str) -> int:
    """Return how many sites a factorisation gives: as many as asked for, or as many as it names."""
    return sites if factorisation in RULES else len(named_factors(factorisation)[0][0])


def check_shapes(factorisation: str, shapes: Iterable[tuple[int, int]]) -> None:
    """Refuse named factors that multiply to no layer of a model: most likely they were mistyped.

    Raises:
        Unsupported: naming the entry and the shapes there are.
    """
    if factorisation in RULES:
        return
    there = dict.fromkeys(shapes)
    for outs, ins in named_factors(factorisation):
        if (prod(outs), prod(ins)) not in there:
            allowed = ", ".join(f"{out} x {inner}" for out, inner in there)
            raise Unsupported(
                f"{written(outs, ins)!r} multiplies to {prod(outs)} x {prod(ins)}, which no layer is",
                f"the layers are {allowed}",
            )


def written(outs: Factors, ins: Factors) -> str:
    """Return a pair of factors as it is named in a study file."""
    return ":".join("x".join(map(str, side)) for side in (outs, ins))


@lru_cache(maxsize=4096)
def balanced_sites(features: int, sites: int) -> Factors:
    """Factor `features` into `sites` factors, ascending, as equal as its prime factors allow."""
    factors = [1] * sites
    for prime in reversed(_primes(features)):
        factors.sort()
        factors[0] *= prime
    return tuple(sorted(factors))


def skewed_sites(features: int, sites: int) -> Factors:
    """Factor `features` into its smallest prime factors, one a site, and all the rest at the last."""
    primes = _primes(features)
    first = primes[:-1][: sites - 1]
    return tuple([1] * (sites - 1 - len(first)) + first + [prod(primes[len(first) :])])


def _primes(number: int) -> list[int]:
    """Return the prime factors of a number, ascending; none of 1."""
    primes, rest, p = [], number, 2
    while rest > 1:
        while rest % p == 0:
            primes.append(p)
            rest //= p
        p += 1 if p * p <= rest else max(rest - p, 1)
    return primes
