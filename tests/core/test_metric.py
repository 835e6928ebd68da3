"""The table of metrics."""

import pytest

from hpo.errors import UsageError
from hpo.metric import METRICS, Metric, Source, metric


@pytest.mark.parametrize("found", METRICS.values(), ids=list(METRICS))
def test_every_metric_is_found_by_its_name_and_says_what_it_is(found: Metric) -> None:
    assert metric(found.name) is found
    assert found.better in ("lower", "higher")
    assert found.unit
    assert len(found.summary) > 20


def test_what_follows_from_a_plan_alone_is_exact_and_nothing_else_is() -> None:
    exact = {name for name, found in METRICS.items() if found.source is Source.EXACT}
    assert exact == {"weight_memory", "parameters", "macs", "kv_cache_memory"}


def test_an_unknown_metric_is_refused_with_the_nearest_spelling() -> None:
    with pytest.raises(UsageError, match="unknown metric 'perplexiti'") as caught:
        metric("perplexiti")
    assert caught.value.hint.startswith("did you mean 'perplexity'?")
    assert "weight_memory" in caught.value.hint
