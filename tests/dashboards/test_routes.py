import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.routes import Axes, Route, StudiesRoute, StudyRoute, TrialRoute, route


@pytest.mark.parametrize("page", [StudiesRoute(), StudyRoute("a.b-c_1"), TrialRoute("quick", 12)])
def test_a_page_is_found_at_its_own_path(page: Route) -> None:
    assert route(page.path) == page


@given(st.text(min_size=1).filter(lambda name: "\ud800" not in name))
def test_any_name_survives_the_address(name: str) -> None:
    assert route(StudyRoute(name).path) == StudyRoute(name)


@pytest.mark.parametrize(
    "path",
    ["/study", "/study/a/trial", "/study/a/trial/x", "/study/a/trial/-1", "/study/a/trial/²", "/etc/passwd"],
)
def test_other_paths_are_no_page(path: str) -> None:
    assert route(path) is None


def test_no_path_is_the_first_page() -> None:
    assert route(None) == StudiesRoute()


METRICS = ["perplexity", "weight_memory", "energy"]


def test_axes_are_read_back_from_the_address() -> None:
    axes = Axes("energy", "weight_memory")
    assert Axes.read(axes.search, METRICS) == axes


@pytest.mark.parametrize("search", [None, "", "?x=nonsense&y=<script>", "?y=perplexity"])
def test_missing_or_unknown_axes_get_their_default(search: str | None) -> None:
    assert Axes.read(search, METRICS) == Axes(x="weight_memory", y="perplexity")


def test_a_single_metric_is_both_axes() -> None:
    assert Axes.read("", ["nll"]) == Axes("nll", "nll")
