"""Wrong studies are refused with place, value, what is allowed and the nearest spelling."""

from typing import Any

import pytest

from hpo.errors import InvalidStudy, Path, UsageError
from hpo.metric import METRICS
from hpo.study import Study
from tests.core.documents import DOCUMENT, REMOVE, changed


def _refusal(document: dict[str, Any]) -> InvalidStudy:
    with pytest.raises(InvalidStudy) as caught:
        Study.from_mapping(document)
    assert isinstance(caught.value, UsageError)
    assert caught.value.exit_code == 2
    return caught.value


WRONG: dict[str, tuple[Path, object, Path, str, str]] = {
    # name: (where it is changed, to what, where it is found, message, part of the hint)
    "an unknown key at the top": (
        ("budgte",), {"trials": 3}, ("budgte",), "unknown key 'budgte'", "did you mean 'budget'?",
    ),
    "an unknown key that resembles none": (
        ("zzz",), 1, ("zzz",), "unknown key 'zzz'", "allowed: budget, data",
    ),
    "an unknown key in a part": (
        ("run", "wrokers"), 2, ("run", "wrokers"), "unknown key 'wrokers'", "did you mean 'workers'?",
    ),
    "an unknown key two parts down": (
        ("data",), {"calibration": {"txt": "a"}, "evaluation": "reference"},
        ("data", "calibration", "txt"), "unknown key 'txt'", "did you mean 'text'?",
    ),
    "an unknown key in an objective": (
        ("objectives", 0, "limti"), 3, ("objectives", 0, "limti"), "unknown key 'limti'",
        "did you mean 'limit'?",
    ),
    "an unknown key in a limit": (
        ("objectives", 0, "limit"), {"ratio_to_dens": 3}, ("objectives", 0, "limit", "ratio_to_dens"),
        "unknown key 'ratio_to_dens'", "did you mean 'ratio_to_dense'?",
    ),
    "an unknown key in a range": (
        ("space", "factorise.keep_ratio", "hgih"), 0.1, ("space", "factorise.keep_ratio", "hgih"),
        "unknown key 'hgih'", "did you mean 'high'?",
    ),
    "a range's key in a choice": (
        ("space", "factorise", "low"), 0.1, ("space", "factorise", "low"), "unknown key 'low'",
        "allowed: choices, type, when",
    ),
    "a key that is no word": (
        ("budget",), {3: 4, "trials": 1}, ("budget", "3"), "unknown key '3'", "hours, joules, trials",
    ),
    "a missing key": (("budget",), REMOVE, ("budget",), "the key 'budget' is missing", "add it"),
    "a missing key in a part": (
        ("data",), {"calibration": "reference"}, ("data", "evaluation"),
        "the key 'data.evaluation' is missing", "add it",
    ),
    "a word where a number is wanted": (
        ("budget", "trials"), "many", ("budget", "trials"), "budget.trials is 'many'", "valid integer",
    ),
    "a fraction of a trial": (
        ("budget", "trials"), 1.5, ("budget", "trials"), "budget.trials is 1.5", "valid integer",
    ),
    "a number where a mapping is wanted": (
        ("budget",), 3, ("budget",), "budget is 3",
        "it must be a mapping with the keys trials, hours, gpu_hours, joules",
    ),
    "a number where a list is wanted": (
        ("objectives",), 3, ("objectives",), "objectives is 3", "it must be a list",
    ),
    "a list where a word is wanted": (("name",), ["a"], ("name",), "name is ['a']", "valid string"),
    "a word that is none of a few": (
        ("run", "device"), "gpu", ("run", "device"), "run.device is 'gpu'",
        "allowed: 'auto', 'cpu' or 'cuda'",
    ),
    "another version": (("version",), 2, ("version",), "version is 2", "allowed: 1"),
    "no objective": (("objectives",), [], ("objectives",), "objectives is []", "name at least one"),
    "an unknown metric": (
        ("objectives", 1), "perplexiti", ("objectives", 1, "metric"), "unknown metric 'perplexiti'",
        "did you mean 'perplexity'?",
    ),
    "an unknown metric that stands alone": (
        ("objectives",), ["perplexiti"], ("objectives", 0, "metric"), "unknown metric 'perplexiti'",
        "did you mean 'perplexity'?",
    ),
    "an objective twice": (
        ("objectives", 1), "perplexity", ("objectives",), "perplexity is named twice",
        "name each metric once",
    ),
    "a limit that is yes": (
        ("objectives", 0, "limit"), True, ("objectives", 0, "limit"), "objectives.0.limit is True",
        "it must be a mapping with the keys value, ratio_to_dense",
    ),
    "two limits at once": (
        ("objectives", 0, "limit"), {"value": 1, "ratio_to_dense": 1}, ("objectives", 0, "limit"),
        "give either value or ratio_to_dense", "",
    ),
    "an unknown sampler": (
        ("search",), {"sampler": "bayes"}, ("search", "sampler"), "unknown sampler 'bayes'",
        "did you mean 'bayesian'? allowed: bayesian, grid, nsga2, optuna-gp, sobol, tpe",
    ),
    "a first candidate with a list for a value": (
        ("search",), {"first": [{"factorise": ["svd"]}]}, ("search", "first", 0, "factorise"),
        "search.first.0.factorise is ['svd']", "it must be a number, a word, true or false",
    ),
    "an unknown runner": (
        ("run",), {"runner": "rya"}, ("run", "runner"), "unknown runner 'rya'",
        "did you mean 'ray'? allowed: in_process, ray",
    ),
    "a budget of no trials": (
        ("budget",), {"trials": 0}, ("budget", "trials"), "budget.trials is 0", "greater than or equal to 1",
    ),
    "a budget of no hours": (
        ("budget",), {"hours": 0}, ("budget", "hours"), "budget.hours is 0", "greater than 0",
    ),
    "a budget of infinite hours": (
        ("budget",), {"hours": float("inf")}, ("budget", "hours"), "budget.hours is inf", "finite number",
    ),
    "a budget of nothing": (
        ("budget",), {}, ("budget",), "give at least one of trials, hours, gpu_hours, joules", "",
    ),
    "a budget of no GPU-hours": (
        ("budget",), {"gpu_hours": 0}, ("budget", "gpu_hours"), "budget.gpu_hours is 0", "greater than 0",
    ),
    "a budget of infinite joules": (
        ("budget",), {"joules": float("inf")}, ("budget", "joules"), "budget.joules is inf", "finite number",
    ),
    "a budget of negative joules": (
        ("budget",), {"joules": -1.0}, ("budget", "joules"), "budget.joules is -1.0", "greater than 0",
    ),
    "a search that does nothing but refine": (
        ("search",), {"refine": 1}, ("search", "refine"), "search.refine is 1", "less than 1",
    ),
    "a negative share to refine in": (
        ("search",), {"refine": -0.1}, ("search", "refine"), "search.refine is -0.1",
        "greater than or equal to 0",
    ),
    "a plateau without a gain": (
        ("search",), {"plateau": {}}, ("search", "plateau", "gain_per_hour"),
        "the key 'search.plateau.gain_per_hour' is missing", "add it",
    ),
    "a plateau of no gain": (
        ("search",), {"plateau": {"gain_per_hour": 0}}, ("search", "plateau", "gain_per_hour"),
        "search.plateau.gain_per_hour is 0", "greater than 0",
    ),
    "a plateau that is a number": (
        ("search",), {"plateau": 0.01}, ("search", "plateau"), "search.plateau is 0.01",
        "it must be a mapping with the keys gain_per_hour, trials, confidence",
    ),
    "a plateau with an unknown key": (
        ("search",), {"plateau": {"gain_per_hour": 1, "trails": 9}}, ("search", "plateau", "trails"),
        "unknown key 'trails'", "did you mean 'trials'?",
    ),
    "a plateau judged by too few trials": (
        ("search",), {"plateau": {"gain_per_hour": 1, "trials": 4}}, ("search", "plateau", "trials"),
        "search.plateau.trials is 4", "greater than or equal to 5",
    ),
    "a plateau that is certain": (
        ("search",), {"plateau": {"gain_per_hour": 1, "confidence": 1.0}},
        ("search", "plateau", "confidence"), "search.plateau.confidence is 1.0", "less than 1",
    ),
    "the same text to fit and to judge by": (
        ("data",), {"calibration": {"text": "a.txt"}, "evaluation": {"text": "a.txt"}}, ("data",),
        "calibration and evaluation are the same text", "must not be judged on what it was fitted to",
    ),
    "a part of the text judged by to fit on": (
        ("data",), {"calibration": {"text": "a.txt", "tokens": 100}, "evaluation": {"text": "a.txt"}},
        ("data",), "calibration and evaluation are the same text", "another split",
    ),
    "two sources of one text": (
        ("data",), {"calibration": {"text": "a", "dataset": "b"}, "evaluation": "reference"},
        ("data", "calibration"), "give exactly one of reference, text, documents, dataset", "",
    ),
    "a window of one token": (
        ("data",), {"calibration": "reference", "evaluation": "reference", "context": 1},
        ("data", "context"), "data.context is 1", "greater than or equal to 2",
    ),
    "timed on a shared GPU": (
        (), {"objectives": ["decode_latency", "energy"], "run": {"gpus_per_worker": 0.5}},
        ("run", "gpus_per_worker"),
        "decode_latency, energy cannot be measured on a shared GPU, and run.gpus_per_worker is 0.5",
        "set run.gpus_per_worker to 1",
    ),
    "an empty space": (("space",), {}, ("space",), "the search space is empty", "at least one parameter"),
    "no space": (("space",), None, ("space",), "the space is None", "name parameters with their ranges"),
    "a space that is a list": (("space",), ["svd"], ("space",), "the space is ['svd']", "name parameters"),
    "a parameter that is a list": (
        ("space", "heal"), ["none"], ("space", "heal"), "parameter 'heal' is ['none']", "a type and range",
    ),
    "a parameter without a type": (
        ("space", "heal"), {"low": 1}, ("space", "heal"), "parameter 'heal' has no type",
        "choice, float, int",
    ),
    "a parameter of an unknown type": (
        ("space", "heal"), {"type": "flot"}, ("space", "heal", "type"),
        "parameter 'heal' has the unknown type 'flot'", "did you mean 'float'?",
    ),
    "a parameter of a type that is a list": (
        ("space", "heal"), {"type": ["int"]}, ("space", "heal", "type"),
        "parameter 'heal' has the unknown type ['int']", "choice, float, int",
    ),
    "a range without an end": (
        ("space", "heal"), {"type": "int", "low": 1}, ("space", "heal", "high"),
        "the key 'high' is missing", "",
    ),
    "a range upside down": (
        ("space", "heal"), {"type": "int", "low": 4, "high": 2}, ("space", "heal"),
        "low (4) is above high (2)", "",
    ),
    "a log range from 0": (
        ("space", "heal"), {"type": "float", "low": 0, "high": 2, "log": True}, ("space", "heal"),
        "a log range needs low above 0, got 0", "",
    ),
    "a log range with a step": (
        ("space", "heal"), {"type": "float", "low": 1, "high": 2, "log": True,
        "step": 0.1}, ("space", "heal"),
        "a log range cannot have a step; leave one of them out", "",
    ),
    "a choice of nothing": (
        ("space", "heal"), {"type": "choice", "choices": []}, ("space", "heal", "choices"), "choices is []",
        "name at least one",
    ),
    "a choice of a list": (
        ("space", "heal"), {"type": "choice", "choices": ["a", [1]]}, ("space", "heal", "choices", 1),
        "choices.1 is [1]", "it must be a number, a word, true or false",
    ),
    "a choice twice": (
        ("space", "heal"), {"type": "choice", "choices": ["a", "a"]}, ("space", "heal"),
        "the choice 'a' is named twice", "",
    ),
    "a condition on an unknown parameter": (
        ("space", "factorise.keep_ratio", "when"), {"factorize": "svd"},
        ("space", "factorise.keep_ratio", "when", "factorize"),
        "'factorise.keep_ratio' is conditional on the unknown parameter 'factorize'",
        "did you mean 'factorise'?",
    ),
    "a condition on a value that never comes": (
        ("space", "factorise.keep_ratio", "when"), {"factorise": "sdv"},
        ("space", "factorise.keep_ratio", "when", "factorise"),
        "'factorise.keep_ratio' is conditional on factorise='sdv', which 'factorise' never is",
        "factorise is one of svd, mpo",
    ),
    "a condition on a mapping": (
        ("space", "factorise.keep_ratio", "when"), {"factorise": {"is": "svd"}},
        ("space", "factorise.keep_ratio", "when", "factorise", 0),
        "when.factorise.0 is {'is': 'svd'}", "it must be a number, a word, true or false",
    ),
    "a condition that is no mapping": (
        ("space", "factorise.keep_ratio", "when"), "svd", ("space", "factorise.keep_ratio", "when"),
        "when is 'svd'", "it must be a mapping",
    ),
    "conditions in a circle": (
        ("space", "factorise", "when"), {"factorise.keep_ratio": 0.5}, ("space",),
        "the conditions of factorise, factorise.keep_ratio form a circle", "break it",
    ),
    "a model without a source": (
        ("model",), {}, ("model", "source"), "the key 'model.source' is missing", "",
    ),
    "a model of no name": (("model",), "", ("model", "source"), "model.source is ''", "at least 1 character"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "value", "where", "message", "hint"), WRONG.values(), ids=list(WRONG))
def test_what_is_wrong_is_refused_with_its_place_its_value_and_what_is_allowed(
    path: Path, value: object, where: Path, message: str, hint: str
) -> None:

    error = _refusal(changed(path, value))
    assert error.message == message
    assert hint in error.hint
    assert error.where == where


@pytest.mark.parametrize("name", ["a b", "-a", ".hidden", "a/b", "é", "a\n", "", "x" * 121])
def test_a_name_that_would_trouble_a_shell_or_a_path_is_refused(name: str) -> None:
    error = _refusal(changed(("name",), name))
    assert error.where == ("name",)
    assert f"name is {name!r}"[:40] in error.message
    assert error.hint


@pytest.mark.parametrize("name", ["a", "A.b_c-1", "7", "x" * 120])
def test_a_plain_name_is_taken(name: str) -> None:
    assert Study.from_mapping(changed(("name",), name)).name == name


def test_the_first_complaint_counts_the_others_once_each() -> None:
    error = _refusal(changed(("budget",), {"trials": 0, "hours": -1}) | {"version": 3})
    assert error.message == "version is 3 (and 2 more)"


def test_an_unknown_key_is_told_before_the_key_that_is_missing_for_it() -> None:
    error = _refusal(changed(("space", "heal"), {"type": "int", "low": 1, "hihg": 2}))
    assert error.message == "unknown key 'hihg' (and 1 more)"
    assert error.hint.startswith("did you mean 'high'?")


def test_a_huge_value_is_cut_short_in_the_message() -> None:
    huge: list[object] = ["x"]
    for _ in range(40):  # 2**40 words, if they were written out
        huge = [huge, huge]
    assert len(_refusal(changed(("name",), huge)).message) < 200
    assert len(_refusal(changed(("space", "heal"), huge)).message) < 200
    assert len(_refusal(changed(("space",), huge)).message) < 200


def test_timed_objectives_may_not_share_a_gpu_but_others_may() -> None:
    shared = {"run": {"gpus_per_worker": 0.5}}
    assert Study.from_mapping({**DOCUMENT, **shared}).run.gpus_per_worker == 0.5


@pytest.mark.parametrize("metric", [name for name in METRICS if "latency" in name or name == "energy"])
def test_every_timed_objective_wants_a_whole_gpu(metric: str) -> None:
    error = _refusal({**DOCUMENT, "objectives": [metric], "run": {"gpus_per_worker": 0.25}})
    assert error.message.startswith(f"{metric} cannot be measured on a shared GPU")
