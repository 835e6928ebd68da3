"""Overrides from the command line: what they reach, and who is to blame for a bad one."""

from collections.abc import Callable
from typing import Any

import pytest

from hpo.space import Int
from hpo.study import Study, TextSource
from hpo.study_file import read_study
from hpo.trial import Limit, Objective
from tests.core.study_files import STUDY, Write, refusal


def _knob(study: Study) -> Any:
    return study.space.parameters["factorise.keep_ratio"]


@pytest.mark.parametrize(
    ("override", "check"),
    [
        ("budget.trials=50", lambda s: s.budget.trials == 50),
        ("search.seed=7", lambda s: s.search.seed == 7),
        ("search={seed: 7}", lambda s: s.search.seed == 7),
        ("run.workers=2", lambda s: s.run.workers == 2),
        ("model=some/model", lambda s: s.model.source == "some/model"),
        ("model.revision=abc", lambda s: (s.model.source, s.model.revision) == ("reference", "abc")),
        ("question=a = b", lambda s: s.question == "a = b"),
        ("budget={hours: 1e-1}", lambda s: s.budget.hours == 0.1),
        ("objectives=[nll]", lambda s: s.objectives == (Objective(metric="nll"),)),
        ("objectives.0=nll", lambda s: s.objectives[0].metric == "nll"),
        ("objectives.0.limit=9", lambda s: s.objectives[0].limit == Limit(value=9)),
        ("objectives.1.limit=null", lambda s: s.objectives[1].limit is None),
        ("space=tensor_network", lambda s: "factorise.sites" in s.space.parameters),
        ("space.factorise=svd", lambda s: s.space.parameters["factorise"].choices == ("svd",)),
        ("space.factorise.keep_ratio.high=0.5", lambda s: _knob(s).high == 0.5),
        ("space.factorise.keep_ratio=0.5", lambda s: _knob(s).count == 1),
        ("space.heal=none", lambda s: len(s.space) == 3),
        ("data={calibration: {text: a}, evaluation: {text: b}}", lambda s: s.data.calibration.text == "a"),
    ],
)  # fmt: skip
def test_an_override_sets_one_key_and_makes_what_it_needs(
    write: Write, override: str, check: Callable[[Study], bool]
) -> None:
    assert not check(read_study(write(STUDY)))
    assert check(read_study(write(STUDY), [override]))


def test_overrides_apply_in_order() -> None:
    study = read_study(
        "quickstart",
        ["space=svd", "space.factorise=svd", "data.calibration.text=a", "data.evaluation.text=b"],
    )
    assert list(study.space.parameters) == ["factorise", "factorise.keep_ratio", "factorise.allocation"]
    assert study.data.calibration == TextSource(text="a")
    assert read_study("quickstart", ["space.heal=none", "space=svd"]) == read_study(
        "quickstart", ["space=svd"]
    )


def test_an_override_of_one_parameter_leaves_the_rest_of_a_named_space() -> None:
    plain = read_study("quickstart").space.parameters
    changed = read_study("quickstart", ["space.factorise.rank.high=64"]).space.parameters
    assert changed["factorise.rank"] == Int(low=8, high=64, log=True, when={"factorise.budget": ("rank",)})
    assert {k: v for k, v in changed.items() if k != "factorise.rank"} == {
        k: v for k, v in plain.items() if k != "factorise.rank"
    }


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("budget.trails=3", "--set budget.trails: unknown key 'trails'", "did you mean 'trials'?"),
        ("budgte.trials=3", "--set budgte: unknown key 'budgte'", "did you mean 'budget'?"),
        ("budget.trials=0", "--set budget.trials: budget.trials is 0", "greater than or equal to 1"),
        ("budget.trials=", "--set budget: give at least one of trials, hours", ""),
        ("budget.trials.x=1", "--set budget.trials: budget.trials is {'x': 1}", "valid integer"),
        ("search.sampler=bayes", "--set search.sampler: unknown sampler 'bayes'", "did you mean 'bayesian'?"),
        ("objectives.0.limti=3", "--set objectives.0.limti: unknown key 'limti'", "did you mean 'limit'?"),
        ("objectives.9=nll", "--set 'objectives.9=nll': '9' is no position in a list of 2", "the whole list"),
        ("objectives.first=nll", "--set 'objectives.first=nll': 'first' is no position", "the first is 0"),
        ("space=low_rnk", "--set space: there is no space 'low_rnk'", "did you mean 'low_rank'?"),
        ("space.factorise.keep_ratio.low=2", "--set space.factorise.keep_ratio: low (2) is above", ""),
        ("budget.trials=[1", "--set 'budget.trials=[1'", "the value is no YAML"),
        ("budget.trials=!!bool x", "--set 'budget.trials=!!bool x'", "the value is no YAML"),
        ("budget.trials=" + "[" * 3000, "--set 'budget.trials=[[", "the value is no YAML"),
        ("budget.trials", "--set 'budget.trials'", "write it as key=value"),
        ("=3", "--set '=3'", "write it as key=value"),
        (".=3", "--set '.=3'", "write it as key=value"),
        ("budget..trials=3", "--set 'budget..trials=3'", "write it as key=value"),
    ],
)
def test_a_bad_override_is_blamed_on_the_command_line(
    write: Write, override: str, message: str, hint: str
) -> None:
    error = refusal(write(STUDY), override)
    assert error.message.startswith(message)
    assert hint in error.hint


def test_a_fault_of_the_file_is_not_blamed_on_a_good_override(write: Write) -> None:
    path = write(STUDY.replace("trials: 5", "trials: 0"))
    assert refusal(path, "search.seed=3").message.startswith(f"{path}:9: ")
