"""A study's trials as files: what stands in them, to the last bit, and that no spreadsheet runs any of it."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from dashboards.downloads import KINDS, encoded, kind_of, table_of
from dashboards.source import Snapshot
from hpo.errors import Unsupported, UsageError
from hpo.metric import METRICS
from hpo.space import Candidate, Value
from hpo.store.spending import Spent, Work
from hpo.store.values import Request, StudyRecord, StudyState
from hpo.trial import Cause, StageTime, Trial
from tests.dashboards.hand import measurement
from tests.dashboards.synthetic import START, answers, asked, candidate, completed, study_named


def shot(*trials: Trial, name: str = "rows") -> Snapshot:
    record = StudyRecord(study_named(name), StudyState.RUNNING, "", Request.NONE, START, START, 0.0, {})
    return Snapshot(record, trials, len(trials), Spent(len(trials), 0.0, Work(), 0.0))


DONE = completed(asked(0, candidate(0.1 + 0.2), "bayesian"), answers(0.3))
FAILED = asked(1, candidate(0.5), "bayesian").failed(Cause.OUT_OF_MEMORY, "needs 3 GiB", START + 70)
DENSE = completed(asked(2, Candidate(), "anchor:dense"), answers(1.0))


def csv_rows(now: Snapshot) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(encoded(now, "csv").content.decode())))


def of_values(values: Sequence[Value]) -> Snapshot:
    return shot(*(asked(n, Candidate.of({"k": value}), "sobol") for n, value in enumerate(values)))


def test_a_row_says_everything_of_a_trial() -> None:
    row = table_of(shot(DONE)).iloc[0]
    assert row["number"] == 0
    assert (row["origin"], row["state"], row["standing"]) == ("bayesian", "completed", "front")
    assert (row["attempt"], row["seconds"], row["plan"]) == (1, 6.0, "0000")
    assert row["asked_at"] == "2026-09-21T14:13:20+00:00"
    assert row["param.factorise.keep_ratio"] == 0.1 + 0.2
    perplexity = DONE.measurement("perplexity")
    assert perplexity is not None
    assert row["perplexity"] == perplexity.value
    assert (row["perplexity.spread"], row["perplexity.unit"], row["perplexity.source"]) == (
        0.04,
        "ppl",
        "measured",
    )
    assert (row["perplexity.repeats"], row["perplexity.device"]) == (5, "cpu:test-machine")
    assert pd.isna(row["weight_memory.device"]), "what follows from the plan is of no device"


def test_what_a_trial_lacks_is_empty() -> None:
    table = table_of(shot(DONE, FAILED, DENSE))
    assert list(table["number"]) == [0, 1, 2]
    failed = table.iloc[1]
    assert (failed["cause"], failed["message"]) == ("out_of_memory", "needs 3 GiB")
    for column in ("standing", "seconds", "joules", "perplexity", "perplexity.unit", "started_at"):
        assert pd.isna(failed[column])
    assert pd.isna(table.iloc[2]["param.factorise"])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ((1, 2), "Int64"),
        ((1, 0.5), "Float64"),
        ((True, False), "boolean"),
        (("a", "b"), "string"),
        (("a", 1), "string"),
        ((True, 1), "string"),
    ],
)
def test_a_parameter_has_the_narrowest_type_that_holds_it(values: tuple[Value, ...], dtype: str) -> None:
    table = table_of(of_values(values))
    assert table["param.k"].dtype == dtype
    for kind in KINDS:
        assert encoded(of_values(values), kind).content


def test_no_column_of_ours_is_the_name_of_a_metric() -> None:
    ours = {name for name in table_of(shot(FAILED)) if "." not in str(name)}
    assert ours & set(METRICS) == {o.metric for o in study_named("rows").objectives}


def test_joules_are_there_where_every_stage_was_counted() -> None:
    counted = replace(DONE, stages=(StageTime("a", 1.0, 2.5), StageTime("b", 1.0, 0.5)))
    assert list(table_of(shot(counted))["joules"]) == [3.0]


def test_every_kind_of_file_reads_back_to_the_last_bit() -> None:
    now = shot(DONE, FAILED, DENSE)
    values = [None if t.value("perplexity") is None else t.value("perplexity") for t in now.trials]
    assert [float(row["perplexity"]) if row["perplexity"] else None for row in csv_rows(now)] == values
    assert [row["perplexity"] for row in json.loads(encoded(now, "json").content)] == values
    parquet = pd.read_parquet(io.BytesIO(encoded(now, "parquet").content))
    assert [None if pd.isna(value) else value for value in parquet["perplexity"]] == values
    assert list(parquet.columns) == list(table_of(now).columns) == list(csv_rows(now)[0])


@pytest.mark.parametrize("first", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1"])
def test_what_looks_like_a_formula_is_made_harmless_in_csv_alone(first: str) -> None:
    text = f"{first},\"'|cmd"
    bad = asked(0, Candidate.of({first: text}), text).failed(Cause.ERROR, text, START)
    (row,) = csv_rows(shot(bad))
    assert row["origin"] == row["message"] == row[f"param.{first}"] == f"'{text}"
    (plain,) = json.loads(encoded(shot(bad), "json").content)
    assert plain["message"] == text


def test_negative_numbers_are_numbers_in_csv() -> None:
    (row,) = csv_rows(of_values([-0.5]))
    assert row["param.k"] == "-0.5"


def test_markup_quotes_emoji_and_line_breaks_survive() -> None:
    text = '<b>"it\'s"</b> 🙂,\n' + 300 * "x"
    bad = asked(0, candidate(0.5), "sobol").failed(Cause.ERROR, text, START)
    assert csv_rows(shot(bad))[0]["message"] == text
    assert json.loads(encoded(shot(bad), "json").content)[0]["message"] == text


def test_half_of_a_surrogate_pair_does_not_stop_a_download() -> None:
    bad = asked(0, candidate(0.5), "sobol").failed(Cause.ERROR, "odd \ud83d end", START)
    assert b"odd ? end" in encoded(shot(bad), "csv").content
    assert b"odd ? end" in encoded(shot(bad), "json").content


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_without_trials_is_an_empty_table(kind: str) -> None:
    found = encoded(shot(), kind)
    assert table_of(shot()).empty
    assert "perplexity" in table_of(shot())
    assert found.content


def test_a_file_is_named_after_its_study() -> None:
    assert encoded(shot(name="halfway"), "csv")[1:] == ("text/csv; charset=utf-8", "halfway-trials.csv")
    assert encoded(shot(), "parquet").media_type == "application/vnd.apache.parquet"


def test_another_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="no 'xlsx'") as caught:
        encoded(shot(), "xlsx")
    assert caught.value.hint == "allowed: csv, json, parquet"
    with pytest.raises(UsageError, match=r"t\.xlsx does not say") as caught:
        kind_of(Path("t.xlsx"))
    assert ".parquet" in caught.value.hint
    assert kind_of(Path("dir.json/T.CSV")) == "csv"


def test_without_pyarrow_parquet_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(Unsupported, match="pyarrow is not installed") as caught:
        encoded(shot(DONE), "parquet")
    assert "pip install pyarrow" in caught.value.hint


def test_a_metric_that_is_no_objective_has_its_columns_too() -> None:
    more = completed(asked(0, candidate(0.5), "sobol"), (*answers(0.5), measurement("nll", 1.5)))
    table = table_of(shot(more))
    assert list(table["nll"]) == [1.5]
    assert list(table.columns).index("nll") > list(table.columns).index("energy")
