"""The tables of the store, as they are now. How they came to be is in `migrations`.

Times are seconds since the epoch. Columns named after a document hold JSON text. Everything of a study
goes with it (ON DELETE CASCADE).
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)

METADATA = MetaData()

# SQLite counts rows up by itself only in a column of exactly this type.
_Id = BigInteger().with_variant(Integer, "sqlite")


def _of_study() -> Column[int]:
    return Column("study_id", _Id, ForeignKey("study.id", ondelete="CASCADE"), primary_key=True)


def _of_trial() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["study_id", "trial"], ["trial.study_id", "trial.number"], ondelete="CASCADE")


STUDY = Table(
    "study",
    METADATA,
    Column("id", _Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("document", Text, nullable=False),  # the resolved study
    Column("hash", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("requested", Text, nullable=False),
    Column("hours", Double, nullable=False),
    Column("environment", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    sqlite_autoincrement=True,
)

LEASE = Table(
    # One row a study, made with it: the row that every writer of the study locks first.
    "lease",
    METADATA,
    _of_study(),
    Column("owner", Text),  # NULL while nobody holds it
    Column("epoch", Integer, nullable=False),
    Column("expires_at", Double, nullable=False),
)

TRIAL = Table(
    "trial",
    METADATA,
    _of_study(),
    Column("number", Integer, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("origin", Text, nullable=False),
    Column("candidate", Text, nullable=False),
    Column("plan_hash", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("cause", Text),
    Column("message", Text, nullable=False),
    Column("worker", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("stages", Text, nullable=False),
    Column("notes", Text, nullable=False),
    Column("kept", Integer, nullable=False),
    Column("epoch", Integer),  # of the coordinator that wrote it last
    Column("lease_until", Double),  # while running: when its worker counts as gone unless heard of
    Index("trial_by_state", "study_id", "state", "cause"),  # the counts of the list of studies
)

PLAN = Table(
    # Apart from the trial: hundreds of layers, read for one trial at a time.
    "plan",
    METADATA,
    _of_study(),
    Column("trial", Integer, primary_key=True),
    Column("layers", Text, nullable=False),
    _of_trial(),
)

MEASUREMENT = Table(
    # Those of a lost attempt stay; a trial is read with those of its latest.
    "measurement",
    METADATA,
    _of_study(),
    Column("trial", Integer, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("metric", Text, nullable=False),
    Column("value", Double, nullable=False),
    Column("unit", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("spread", Double, nullable=False),
    Column("repeats", Integer, nullable=False),
    Column("device", Text, nullable=False),
    Column("note", Text, nullable=False),
    _of_trial(),
)

FRONT = Table(
    "front",
    METADATA,
    _of_study(),
    Column("revision", Integer, primary_key=True),
    Column("members", Text, nullable=False),
    Column("hypervolume", Double),
    Column("reference", Text, nullable=False),
    Column("ideal", Text, nullable=False),
    Column("trials", Integer, nullable=False),
    Column("at", Double, nullable=False),
)

EVENT = Table(
    # Append-only. Ids grow in the order of commit within a study, because its writers take turns.
    "event",
    METADATA,
    Column("id", _Id, primary_key=True),
    Column("study_id", _Id, ForeignKey("study.id", ondelete="CASCADE"), nullable=False),
    Column("at", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("trial", Integer),
    Column("attempt", Integer),
    Column("payload", Text, nullable=False),
    Index("event_by_study", "study_id", "id"),
    sqlite_autoincrement=True,
)

MIGRATION = Table(
    # Our own, not alembic's: Optuna, which may share the database, owns `alembic_version`.
    "hpo_migration",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("applied_at", Double, nullable=False),
)
