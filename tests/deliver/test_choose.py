"""A trial is chosen by number, by limits, or as the knee."""

import pytest

from hpo.deliver.choose import chosen, parse_limit
from hpo.errors import NotFound, UsageError
from hpo.store.store import Store
from hpo.trial import Trial
from tests.deliver.conftest import Home


def _chosen(home: Home, trial: int | None, *limits: str) -> Trial:
    with Store.open(home.url, read_only=True) as store:
        return chosen(store, store.study("tiny").study, trial, limits)


def test_a_limit_is_a_metric_a_sign_and_a_number() -> None:
    assert parse_limit(" weight_memory <= 1e6 ") == ("weight_memory", 1e6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weight_memory", "write it as metric<=value"),
        ("weight_memory<1", "write it as metric<=value"),
        ("wait_memory<=1", "weight_memory"),
        ("perplexity>=3", "better lower: use <="),
        ("perplexity<=1e", "is no number"),
    ],
)
def test_a_wrong_limit_says_what_is_right(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_limit(text)
    assert message in str(caught.value)


def test_a_number_wins_and_the_knee_is_of_the_front(home: Home) -> None:
    assert _chosen(home, 3).number == 3
    assert _chosen(home, None).number in (1, 2, 3, 4)


def test_limits_are_kept(home: Home) -> None:
    sizes = {n: home.trial("tiny", n).value("weight_memory") for n in (1, 2, 3, 4)}
    smallest = min(sizes, key=lambda n: sizes[n] or 0.0)
    assert _chosen(home, None, f"weight_memory<={sizes[smallest]}").number == smallest


def test_a_limit_nobody_keeps_names_the_best_there_is(home: Home) -> None:
    lowest = min(home.trial("tiny", n).value("weight_memory") or 0.0 for n in (1, 2, 3, 4))
    with pytest.raises(NotFound, match="no member of the front") as caught:
        _chosen(home, None, "weight_memory<=10")
    assert f"weight_memory {lowest:.6g}" in caught.value.hint


def test_a_failed_trial_is_refused_with_its_reason(home: Home) -> None:
    with pytest.raises(UsageError, match="trial 5 of 'tiny' is failed: no room for it"):
        _chosen(home, 5)


def test_an_unknown_number_is_refused(home: Home) -> None:
    with pytest.raises(NotFound):
        _chosen(home, 77)
