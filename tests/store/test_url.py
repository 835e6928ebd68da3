"""Addresses of stores: what is understood, what is shown, what is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import StoreError, UsageError
from hpo.store.url import display, file_of, parse, refuse_network_file_system, secrets

MOUNTS = r"""
/dev/sda1 / ext4 rw,relatime 0 0
tmpfs /tmp tmpfs rw 0 0
nas:/export /mnt/shared nfs4 rw,vers=4.2 0 0
/dev/nvme0n1 /mnt/shared/scratch xfs rw 0 0
//server/office /mnt/my\040files cifs rw 0 0
me@host:/home /home/me/far fuse.sshfs rw 0 0
systemd-1 /data autofs rw 0 0
mds:/data /data lustre rw 0 0
broken line
"""


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_becomes_psycopg_3(scheme: str) -> None:
    url = parse(f"{scheme}://ann@db.example:5433/studies")
    assert url.drivername == "postgresql+psycopg"
    assert (url.username, url.host, url.port, url.database) == ("ann", "db.example", 5433, "studies")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite:///runs/my.db", "runs/my.db"),
        ("sqlite+pysqlite:///my.db", "my.db"),
        ("runs/my.db", "runs/my.db"),
        ("my.sqlite", "my.sqlite"),
        ("./my.sqlite3", "my.sqlite3"),
        ("with space & more.db", "with space & more.db"),
    ],
)
def test_a_relative_file_becomes_absolute(
    text: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert file_of(parse(text)) == tmp_path / path


def test_a_password_may_hold_anything_once_escaped() -> None:
    assert parse("postgresql://ann:p%40ss%2Fw%3Ard@db/x").password == "p@ss/w:rd"


def test_a_home_directory_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert file_of(parse("~/my.db")) == Path("/home/ann/my.db")
    assert file_of(parse("sqlite:////var/lib/my.db")) == Path("/var/lib/my.db")


@pytest.mark.parametrize("text", ["sqlite://", "sqlite:///", "sqlite:///:memory:", ":memory:"])
def test_a_store_in_memory_has_no_file(text: str) -> None:
    assert file_of(parse(text)) is None
    assert display(parse(text)) == "sqlite://"


def test_the_default_is_the_environment_and_then_a_file_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HPO_STORAGE", raising=False)
    assert file_of(parse()) == tmp_path / "hpo.db"
    monkeypatch.setenv("HPO_STORAGE", "postgres://db.example/studies")
    assert parse().host == "db.example"
    assert file_of(parse("other.db")) == tmp_path / "other.db"
    monkeypatch.setenv("HPO_STORAGE", "")
    assert file_of(parse()) == tmp_path / "hpo.db"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("studies", "'studies' is not the address of a study store"),
        ("postgresql://db:port/x", "is not the address of a study store"),
        ("postgresql://ann:p@ss@db/x", r"ann:\*\*\*@db/x' is not the address(?s:.*)written %40"),
        ("mysql://db/x", r"unknown kind 'mysql'(?s:.*)allowed: postgresql, sqlite"),
        ("postgresq://db/x", "did you mean 'postgresql'"),
        ("sqlite://hpo.db", r"names a host(?s:.*)three slashes(?s:.*)sqlite:///hpo.db"),
        ("sqlite:///hpo.db?mode=ro", "has SQLite parameters"),
        ("sqlite:///file:hpo.db", "has SQLite parameters"),
    ],
)
def test_what_is_no_address_is_refused_with_what_is(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ann:s3cret@db/x", "postgresql+psycopg://ann:***@db/x"),
        ("postgresql://db/x?user=ann&password=s3cret", "postgresql+psycopg://db/x?password=***&user=ann"),
        ("postgresql://db/x?sslpassword=s3cret", "postgresql+psycopg://db/x?sslpassword=***"),
        ("postgresql://ann@db/x", "postgresql+psycopg://ann@db/x"),
    ],
)
def test_a_shown_address_hides_every_secret(text: str, shown: str) -> None:
    assert display(parse(text)) == shown
    assert "s3cret" not in display(text)
    assert secrets(parse(text)) == (("s3cret",) if "s3cret" in text else ())


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ann:s3cret@db:port/x",
        "ann:s3cret@db/x",
        "host=db user=ann password=s3cret dbname=x",
        "host=db password = 's3cret s3cret' dbname=x",
        "postgresql//ann:s3cret@db/x",
        "oracle://ann:s3cret@db/x",
        "sqlite://ann:s3cret@db/x",
        "postgresql://ann:@s3cret@db/x",
    ],
)
def test_an_address_that_is_refused_hides_its_secrets_too(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@given(before=st.text(max_size=5), after=st.text(max_size=5), port=st.sampled_from(["", ":5432", ":x", ":"]))
def test_no_password_however_odd_is_ever_shown(before: str, after: str, port: str) -> None:
    text = f"postgresql://ann:{before}s3cret{after}@db{port}/x"
    assert "s3cret" not in display(text)
    try:
        shown = repr(parse(text))
    except UsageError as error:
        shown = str(error)
    assert "s3cret" not in shown


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/mnt/shared/hpo.db", "nfs4 at /mnt/shared"),
        ("/mnt/shared/deep/er/hpo.db", "nfs4 at /mnt/shared"),
        ("/mnt/my files/hpo.db", "cifs at /mnt/my files"),
        ("/home/me/far/hpo.db", "fuse.sshfs at /home/me/far"),
        ("/data/hpo.db", "lustre at /data"),
        ("/mnt/local/../shared/hpo.db", "nfs4 at /mnt/shared"),
    ],
)
def test_a_file_on_a_network_file_system_is_refused_with_the_reason(path: str, kind: str) -> None:
    with pytest.raises(StoreError, match=kind) as caught:
        refuse_network_file_system(Path(path), MOUNTS)
    assert "locks fail" in caught.value.message
    assert "PostgreSQL" in caught.value.hint


@pytest.mark.parametrize(
    "path", ["/hpo.db", "/tmp/hpo.db", "/mnt/hpo.db", "/mnt/shared/scratch/hpo.db", "/mnt/sharedness/hpo.db"]
)
def test_a_file_on_a_local_file_system_passes(path: str) -> None:
    refuse_network_file_system(Path(path), MOUNTS)


def test_a_system_without_a_table_of_mounts_passes() -> None:
    refuse_network_file_system(Path("/mnt/shared/hpo.db"), "")
