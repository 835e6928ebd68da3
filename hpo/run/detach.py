"""Hand a study to a Ray cluster: the coordinator becomes a Ray job that outlives this terminal."""

import shlex
import time
from pathlib import Path

from hpo.errors import HpoError, UsageError
from hpo.models.shared_files import for_workers
from hpo.run.earlier import check_named
from hpo.run.launch import check_study, for_model, refuse_taken
from hpo.store.store import Store
from hpo.store.url import parse
from hpo.study import Study

_PATIENCE_S = 60.0
"""How long to wait for a cluster whose agents are still starting."""


def create(store: Store, study: Study) -> None:
    """Check what can be checked without workers, and create the study for a job to run.

    Raises:
        UsageError: the name is taken, or the study is wrong.
    """
    refuse_taken(store, study.name)
    check_study(study)
    study = for_model(study)
    check_named(store, study)
    if study.run.runner != "ray":
        raise UsageError("--detach needs the Ray runner", "set run.runner: ray")
    store.create_study(study, {}, time.time())


def submit(name: str, storage: str | None, address: str | None) -> str:
    """Submit a Ray job that resumes the study; return what to tell the user.

    The job's metadata is readable by everyone on the cluster, so a database password never goes
    there: with one in the URL, the nodes must have ``HPO_STORAGE`` in their own environment.

    Raises:
        HpoError: there is no cluster at `address`.
    """
    from hpo.run.ray_cluster import want_token

    want_token()
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            job = _submitted(name, storage, address or "auto")
            return f"submitted as Ray job {job}; watch it with: hpo status {name} --watch"
        except (ConnectionError, RuntimeError, ValueError) as error:
            # A cluster that has just been started answers before its agents take jobs.
            if "try again later" not in str(error) or time.monotonic() > end:
                raise HpoError(
                    f"no Ray cluster takes jobs at {address or 'auto'}: {str(error).splitlines()[0]}",
                    f"start one with `ray start --head`, then: hpo launch {name} --resume --detach",
                ) from None
        time.sleep(2.0)


def _submitted(name: str, storage: str | None, address: str) -> str:
    from ray.job_submission import JobSubmissionClient

    job: str = JobSubmissionClient(address).submit_job(
        entrypoint=f"hpo resume {shlex.quote(name)} --ray-address auto",
        runtime_env={"env_vars": _environment(storage)},
        metadata={"study": name},
    )
    return job


def _environment(storage: str | None) -> dict[str, str]:
    url = parse(storage)
    if url.password is not None:
        return for_workers()
    if url.drivername == "sqlite" and url.database:
        url = url.set(database=str(Path(url.database).resolve()))
    return {"HPO_STORAGE": url.render_as_string(hide_password=False), **for_workers()}
