"""The problem that docs/search.md plugs in runs as it stands there."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.trial import TrialState

PAGE = Path(__file__).parents[2] / "docs" / "search.md"


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    assert found is not None
    names: dict[str, Any] = {"__name__": "documented"}
    exec(compile(found[1], str(PAGE), "exec"), names)
    return names


def test_the_documented_search_runs_and_finds_a_front(names: dict[str, Any]) -> None:
    history, problem = names["history"], names["problem"]
    assert [trial.state for trial in history] == [TrialState.COMPLETED] * 30
    assert len({trial.plan_hash for trial in history}) == 30
    share = problem.frame(history).hypervolume(problem.losses(history))
    quasi_random = problem.frame(history).hypervolume(problem.losses(history[:8]))
    assert share > 1.5 * quasi_random


def test_the_documented_preview_says_what_running_says(names: dict[str, Any]) -> None:
    history, problem = names["history"], names["problem"]
    exact = problem.preview([trial.candidate for trial in history]).exact[:, 0]
    assert np.allclose(exact, problem.losses(history)[:, 3])
