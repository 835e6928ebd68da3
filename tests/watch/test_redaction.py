"""Secrets taken out of text: those that are known, and those that look like one."""

import logging
from pathlib import Path

import pytest

from hpo.watch.redaction import RedactingFilter, Redactor, known_secrets

EMPTY = {"RAY_AUTH_TOKEN_PATH": "/nonexistent", "HF_TOKEN_PATH": "/nonexistent"}


def test_the_environment_tells_what_is_secret() -> None:
    found = known_secrets(
        ["postgresql://ann:pass%40word@db/x"],
        {
            **EMPTY,
            "HF_TOKEN": "hf-token-value",
            "RAY_AUTH_TOKEN": "ray-token-value",
            "PGPASSWORD": "pg-password",
            "AWS_SECRET_ACCESS_KEY": "aws-key-value",
            "HPO_STORAGE": "postgresql://bob:store-password@db/x?sslpassword=ssl-password",
            "TOKENIZERS_PARALLELISM": "false-value",
            "SOME_TOKEN": "short",
        },
    )
    assert set(found) == {
        "pass@word", "pass%40word", "hf-token-value", "ray-token-value", "pg-password", "aws-key-value",
        "store-password", "ssl-password",
    }  # fmt: skip


def test_files_with_tokens_are_known_too(tmp_path: Path) -> None:
    (tmp_path / "ray").write_text("ray-token-in-a-file\n")
    (tmp_path / "url").write_text("postgresql://ann:filed-password@db/x")
    (tmp_path / "url").chmod(0o600)
    environ = {**EMPTY, "RAY_AUTH_TOKEN_PATH": f"{tmp_path}/ray", "HPO_STORAGE_FILE": f"{tmp_path}/url"}
    assert known_secrets((), environ) == ("ray-token-in-a-file", "filed-password")


def test_an_address_that_is_none_holds_nothing() -> None:
    assert known_secrets(["hpo.db", "", "postgresql://ann:p@ss@db/x"], EMPTY) == ()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("it is open-sesame here", "it is *** here"),
        ("postgresql+psycopg://ann:pw@db/x refused", "postgresql+psycopg://ann:***@db/x refused"),
        ("host=db password=abc user=x", "host=db password=*** user=x"),
        ("http://127.0.0.1:8050/?token=abc-def&x=1", "http://127.0.0.1:8050/?token=***&x=1"),
        ('{"auth_token": "abc", "n": 1}', '{"auth_token": "***", "n": 1}'),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer ***"),
        ("hf_abcdefghijklmnopqrst is no user", "*** is no user"),
        ("AWS_SECRET_ACCESS_KEY = x", "AWS_SECRET_ACCESS_KEY = x"),
        ("perplexity 4.2 nats per token: good", "perplexity 4.2 nats per token: good"),
        ("tokens=2048, context 64", "tokens=2048, context 64"),
    ],
)
def test_what_looks_like_a_secret_is_replaced_and_nothing_else(text: str, clean: str) -> None:
    assert Redactor(["open-sesame"]).text(text) == clean


def test_a_secret_within_a_longer_one_leaves_nothing_behind() -> None:
    assert Redactor(["abcdef", "abcdef-ghi"]).text("abcdef-ghi abcdef") == "*** ***"


def test_values_are_cleaned_at_any_depth() -> None:
    value = {"why": "open-sesame", "list": ["x open-sesame", 1, None], "n": 2.5}
    assert Redactor(["open-sesame"]).value(value) == {"why": "***", "list": ["x ***", 1, None], "n": 2.5}


def test_a_record_is_cleaned_in_its_arguments_and_its_traceback() -> None:
    redact = RedactingFilter(Redactor(["open-sesame"]))
    try:
        raise ValueError("open-sesame")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
        record = logging.LogRecord("hpo", logging.ERROR, __file__, 1, "at %s", ("open-sesame",), info)
    assert redact.filter(record)
    assert "open-sesame" not in logging.Formatter().format(record)
    assert record.getMessage() == "at ***"


def test_a_redactor_shows_no_secret_of_its_own() -> None:
    assert "open-sesame" not in repr(Redactor(["open-sesame"]))
