"""Progress over several budgets."""

import pytest

from dashboards.source import Snapshot
from dashboards.summary import model_rows, progress
from hpo.skill import Skill
from hpo.store.spending import Spent, Work
from hpo.store.values import Request, StudyRecord, StudyState
from tests.dashboards.hand import TRIALS, asked
from tests.store.samples import make_study


def snapshot(**budget: float) -> Snapshot:
    """Five trials that are over and one that waits; 5 worker hours on 2 GPUs each, 3 hours in all."""
    study = type(make_study()).from_mapping(make_study().to_mapping() | {"budget": budget})
    record = StudyRecord(study, StudyState.RUNNING, "", Request.NONE, 1.0, 1.0, 3.0, {"device": "cuda: H"})
    work = Work(seconds=5 * 3600.0, joules=900.0, stages=5)
    return Snapshot(record, (*TRIALS, asked(5)), 1, Spent(6, 3.0, work, 2.0))


@pytest.mark.parametrize(
    ("budget", "done", "of", "said"),
    [
        ({"trials": 40}, 5, 40, "5 of 40 trials"),
        ({"hours": 4}, 3, 4, "3 of 4 h"),
        ({"trials": 40, "gpu_hours": 16}, 10, 16, "5 of 40 trials, 10 of 16 GPU-hours"),
        ({"hours": 4, "joules": 1000}, 900, 1000, "3 of 4 h, 900 of 1,000 J"),
    ],
)
def test_progress_is_that_of_the_budget_nearest_to_its_end(
    budget: dict[str, float], done: float, of: float, said: str
) -> None:
    assert progress(snapshot(**budget)) == (done, of, said)


def test_the_model_of_the_search_is_shown_in_figures() -> None:
    skills = (Skill("perplexity", 12, 0.214, 11 / 12), Skill("prefill_latency", 9, 1.3, 0.5))
    assert model_rows(skills) == [
        ("perplexity", "12", "0.21", "91.7 %"),
        ("prefill latency", "9", "1.30", "50.0 %"),
    ]
