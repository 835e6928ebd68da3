"""Three small studies that are runs of one thing, and others that cannot be compared with them."""

from pathlib import Path

import numpy as np

from hpo.space import Candidate
from hpo.store.store import Store
from hpo.study import Study
from hpo.trial import Cause, Trial
from tests.dashboards.synthetic import (
    ENVIRONMENT,
    START,
    answers,
    asked,
    candidate,
    completed,
    front_of,
    study_named,
    write_trial,
)

SEEDS = ("seed-0", "seed-1", "seed-2")


def write_seeds(path: Path) -> str:
    """Write studies of 8, 12 and 16 trials, one without trials, one that failed, one of other objectives."""
    url = f"sqlite:///{path}"
    with Store.open(url) as store:
        for seed, name in enumerate(SEEDS):
            write_one(store, study_named(name), searched(seed, 8 + 4 * seed))
        write_one(store, study_named("empty"), ())
        failed = (
            asked(0, candidate(0.5), "sobol").started("worker-0", START).failed(Cause.ERROR, "", START + 1)
        )
        write_one(store, study_named("failed"), (failed,))
        other = study_named("other").to_mapping()
        other["objectives"] = [*other["objectives"][:2], {"metric": "peak_memory"}]
        write_one(store, Study.from_mapping(other), ())
    return url


def searched(seed: int, count: int) -> tuple[Trial, ...]:
    """Return so many completed trials: the dense model, an anchor, and what a search found."""
    random = np.random.default_rng(seed)
    found = [
        completed(asked(0, Candidate(), "anchor:dense"), answers(1.0)),
        completed(asked(1, candidate(0.5), "anchor:svd"), answers(0.5, 0.3)),
    ]
    for number in range(2, count):
        keep, wobble = float(random.uniform(0.2, 0.95)), float(abs(random.normal(0, 0.1)))
        found.append(completed(asked(number, candidate(keep), "bayesian"), answers(keep, wobble)))
    return tuple(found)


def write_one(store: Store, study: Study, trials: tuple[Trial, ...]) -> None:
    """Write a study that nobody runs any more, with its front."""
    store.create_study(study, ENVIRONMENT, START)
    lease = store.acquire(study.name, "test", 600.0, START)
    for trial in trials:
        write_trial(store, lease, trial)
    if any(trial.is_dense for trial in trials):
        store.save_front(lease, front_of(study, trials))
    store.release(lease, START)
