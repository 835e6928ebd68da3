"""Studies and trials to store, and a bulk filler for stores of many trials."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, text

from hpo.metric import METRICS, Source
from hpo.space import Candidate, Value
from hpo.store.database import Database
from hpo.store.rows import measurement_rows, trial_row
from hpo.store.schema import MEASUREMENT, TRIAL
from hpo.store.store import Store
from hpo.store.url import parse
from hpo.store.values import Front, Lease
from hpo.study import Study
from hpo.trial import LayerRecord, Measurement, StageTime, Trial

NOW = 1_800_000_000.0
METRIC_NAMES = ("perplexity", "prefill_latency", "weight_memory", "energy", "peak_memory", "macs")


def make_study(name: str = "quick", trials: int = 10, question: str = "How small can it get?") -> Study:
    return Study.from_mapping(
        {
            "version": 1,
            "name": name,
            "question": question,
            "model": "reference",
            "objectives": ["perplexity", "weight_memory"],
            "space": {
                "factorise": {"type": "choice", "choices": ["svd", "mpo"]},
                "factorise.keep_ratio": {"type": "float", "low": 0.1, "high": 1.0},
            },
            "budget": {"trials": trials},
        }
    )


def waiting(number: int = 0, attempt: int = 1) -> Trial:
    values: dict[str, Value] = {"factorise": "svd", "factorise.keep_ratio": 0.1 + number / 1e5}
    return Trial(
        number,
        Candidate.of(values),
        "bayesian",
        plan_hash=f"{number:016x}",
        attempt=attempt,
        created_at=NOW + number,
    )


def running(number: int = 0, attempt: int = 1) -> Trial:
    return waiting(number, attempt).started("worker-1", NOW + number + 1)


def measured(number: int = 0, attempt: int = 1, value: float = 4.7) -> Trial:
    """Return a running trial with one stage done and two measurements."""
    found = (measurement("perplexity", value), Measurement.exact("weight_memory", 1_048_576.0))
    return running(number, attempt).advanced(StageTime("screen", 0.75), found, {"loss_before": 2.5})


def completed(number: int = 0, attempt: int = 1, value: float = 4.7) -> Trial:
    return measured(number, attempt, value).completed(NOW + number + 2)


def measurement(name: str, value: float) -> Measurement:
    return Measurement(name, value, METRICS[name].unit, Source.MEASURED, 0.01, 5, "cpu:sample", "a note")


def layers() -> tuple[LayerRecord, ...]:
    return (
        LayerRecord("layers.0.q_proj", "low_rank", "rank 34", 8_704, 16_384, 34_816),
        LayerRecord("layers.0.k_proj", "dense", "", 16_384, 16_384, 65_536),
    )


def make_front(
    revision: int = 1, members: tuple[int, ...] = (0, 2), hypervolume: float | None = 0.5
) -> Front:
    return Front(revision, members, hypervolume, (6.0, 2e6), (0.0, 0.0), trials=3, at=NOW + revision)


def begun(store: Store, name: str = "quick", owner: str = "me") -> Lease:
    """Create a study and take its lease for a minute."""
    store.create_study(make_study(name), {"python": "3.11"}, NOW)
    return store.acquire(name, owner, 60.0, NOW)


def fill(url: str, count: int, name: str = "big") -> None:
    """Store a study of `count` completed trials of 6 measurements each, in one transaction."""
    with Store.open(url) as store:
        begun(store, name)
    done = [_full(number) for number in range(count)]
    database = Database(parse(url), read_only=False)
    trials = [{"study_id": 1, **trial_row(trial)} for trial in done]
    measurements = [row for trial in done for row in measurement_rows(1, trial)]

    database.write(lambda c: (c.execute(insert(TRIAL), trials), c.execute(insert(MEASUREMENT), measurements)))
    database.close()


def _full(number: int) -> Trial:
    values = [measurement(name, number + k / 7) for k, name in enumerate(METRIC_NAMES)]
    return running(number).advanced(StageTime("measure", 1.5), values).completed(NOW + number + 2)


def scalars(url: str, query: str) -> Sequence[Any]:
    """Return the first column of a query on the database behind a store."""
    database = Database(parse(url), read_only=False)
    found: Sequence[Any] = database.read(lambda c: c.scalars(text(query)).all())
    database.close()
    return found


def execute(url: str, *statements: str) -> None:
    """Change the database behind a store's back."""
    database = Database(parse(url), read_only=False)
    database.write(lambda c: [c.execute(text(statement)) for statement in statements])
    database.close()
