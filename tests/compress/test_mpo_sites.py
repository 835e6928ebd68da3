from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.compress.mpo_sites import (
    RULES,
    balanced_sites,
    check_shapes,
    count_of,
    named_factors,
    sites_of,
    skewed_sites,
    written,
)
from hpo.errors import Unsupported


@pytest.mark.parametrize(
    ("rule", "sites", "expected"),
    [
        ("balanced", 2, ((16, 22), (16, 8))),
        ("ascending", 2, ((16, 22), (8, 16))),
        ("descending", 2, ((22, 16), (16, 8))),
        ("skewed", 2, ((2, 176), (64, 2))),
        ("balanced", 3, ((4, 8, 11), (8, 4, 4))),
        ("skewed", 4, ((2, 2, 2, 44), (16, 2, 2, 2))),
    ],
)
def test_rules_split_a_layer_of_352_by_128(
    rule: str, sites: int, expected: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    assert sites_of(352, 128, sites, rule) == expected


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(2, 4), st.sampled_from(RULES))
def test_every_rule_covers_every_layer(out: int, inner: int, sites: int, rule: str) -> None:
    outs, ins = sites_of(out, inner, sites, rule)
    assert len(outs) == len(ins) == sites
    assert (prod(outs), prod(ins)) == (out, inner)


@pytest.mark.parametrize(
    ("features", "sites", "expected"),
    [
        (128, 2, (8, 16)),
        (352, 2, (16, 22)),
        (4096, 3, (16, 16, 16)),
        (11008, 2, (86, 128)),
        (7, 2, (1, 7)),
        (1, 3, (1, 1, 1)),
    ],
)
def test_sites_are_as_equal_as_the_prime_factors_allow(
    features: int, sites: int, expected: tuple[int, ...]
) -> None:
    assert balanced_sites(features, sites) == expected


def test_skewed_sites_of_a_number_with_few_primes_begin_with_ones() -> None:
    assert skewed_sites(7, 3) == (1, 1, 7)
    assert skewed_sites(12, 3) == (2, 2, 3)


def test_named_factors_serve_the_layer_they_multiply_to() -> None:
    named = "8x16:16x8, 16x22:16x8"
    assert sites_of(128, 128, 2, named) == ((8, 16), (16, 8))
    assert sites_of(352, 128, 2, named) == ((16, 22), (16, 8))
    assert count_of(4, named) == 2
    assert count_of(4, "skewed") == 4
    assert written(*sites_of(352, 128, 2, named)) == "16x22:16x8"


def test_a_layer_without_named_factors_is_refused_with_some_that_would_do() -> None:
    with pytest.raises(Unsupported, match=r"128 x 352[\s\S]*add '8x16:16x22'"):
        sites_of(128, 352, 2, "8x16:16x8")


def test_named_factors_of_no_layer_are_refused_with_the_shapes_there_are() -> None:
    check_shapes("8x16:16x8", [(128, 128), (128, 128)])
    with pytest.raises(Unsupported, match=r"'8x15:16x8' multiplies to 120 x 128[\s\S]*128 x 128, 352 x 128"):
        check_shapes("8x16:16x8, 8x15:16x8", [(128, 128), (352, 128)])


@pytest.mark.parametrize(
    "text",
    ["", "even", "8x16", "8:16", "8x16:16x8x1", "8x16:16x8, 4x4x8:4x4x8", "0x8:8x8", "2x2x2x2x2:2x2x2x2x2"],
)
def test_factors_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither a rule|sites; allowed: 2 to 4"):
        named_factors(text)
