from dataclasses import replace

from dashboards.trial_rows import MEASUREMENT_HEAD, measurement_rows, state_text, trial_rows
from dashboards.trial_table import trial_columns
from hpo.space import Candidate
from hpo.trial import Cause
from tests.dashboards.synthetic import answers, asked, candidate, completed, measured, study_named, trials

STUDY = study_named("rows")


def test_a_row_has_numbers_to_sort_by_and_texts_to_show() -> None:
    row = trial_rows(STUDY, trials())[5]
    assert isinstance(row["perplexity"], float)
    assert row["perplexity_text"].endswith("± 0.040 ppl")
    assert row["energy_text"].endswith("(modelled)")
    assert row["seconds"] == 6.0
    assert row["seconds_text"] == "6 s"


def test_a_column_of_bytes_has_one_unit() -> None:
    pair = [
        completed(asked(n, candidate(0.5), "sobol"), (measured("weight_memory", size),))
        for n, size in enumerate((2.0**19, 2.0**21))
    ]
    assert [row["weight_memory_text"] for row in trial_rows(STUDY, pair)] == ["0.5 MiB", "2 MiB"]


def test_what_was_not_measured_is_empty_and_no_number() -> None:
    lacking = completed(asked(0, candidate(0.5), "sobol"), answers(0.5)[:1])
    (row,) = trial_rows(STUDY, [lacking])
    assert row["energy"] is None
    assert row["energy_text"] == ""
    assert row["standing"] == "lacks an objective"


def test_a_failure_is_told_with_its_cause() -> None:
    assert (
        state_text(asked(0, candidate(0.5), "sobol").failed(Cause.LOST_WORKER, "", 1.0))
        == "failed: lost worker"
    )


def test_every_column_shows_a_field_of_the_rows() -> None:
    row = trial_rows(STUDY, trials())[0]
    for column in trial_columns(STUDY):
        assert column["field"] in row
        if "valueFormatter" in column:
            assert f"{column['field']}_text" in row


def test_measurements_are_compared_with_the_dense_models_on_the_same_device_alone() -> None:
    dense = completed(asked(0, Candidate(), "anchor:dense"), answers(1.0))
    half = completed(asked(1, candidate(0.5), "sobol"), answers(0.5))
    rows = {
        row[0]: dict(zip(MEASUREMENT_HEAD, row, strict=True)) for row in measurement_rows(half, [dense, half])
    }
    assert rows["weight memory"] == {
        "metric": "weight memory",
        "value": "849.2 KiB",
        "of dense": "0.5 ×",
        "repeats": "–",
        "source": "exact",
        "device": "–",
        "how": "–",
    }
    assert rows["prefill latency"]["value"] == "3.500 ± 0.080 ms"
    assert (rows["prefill latency"]["of dense"], rows["prefill latency"]["repeats"]) == ("0.7 ×", "5")
    assert [row[2] for row in measurement_rows(half, [half])] == ["–"] * 4
    elsewhere = replace(half, measurements=tuple(replace(m, device="gpu") for m in half.measurements))
    assert {row[2] for row in measurement_rows(elsewhere, [dense, elsewhere])} == {
        "dense was on another device"
    }
