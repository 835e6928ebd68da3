"""Fetch a model from the hub, or find it in the hub's local cache, as a directory.

Resolving a hub id to a directory first means that everything after (what is refused, what is loaded,
what is hashed) is written once, for directories.
"""

from pathlib import Path
from typing import cast

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hpo.errors import ModelError
from hpo.errors import Path as Where
from hpo.models.source import nearby
from hpo.study import ModelSource

_NEEDED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
"""Configuration, weights, and tokenizers of every kind; never a pickle."""
_NOT_NEEDED = ["*/*", "consolidated*"]
"""Exports to other runtimes, and Mistral's second copy of its weights."""
_PATIENCE_S = 5.0
_HTTP_ERROR = cast(type[Exception], HfHubHTTPError.__bases__[0])
"""The root of the HTTP client's errors (timeouts, refused connections); which client it is varies."""
_SOURCE: Where = ("model", "source")


def fetch(source: ModelSource) -> tuple[Path, str]:
    """Return the local snapshot of a hub model and its commit.

    Where the hub does not answer within seconds, what the local cache has is taken.

    Raises:
        ModelError: no such model or revision, no permission, or unreachable and not in the cache.
    """
    commit = _commit_on_hub(source)
    if source.trust_remote_code and commit not in (None, source.revision):
        raise ModelError(
            f"the hub has {source.source!r} at {commit}, not at the commit {source.revision} that is trusted",
            "give the commit whose code you have read",
            ("model", "revision"),
        )
    patterns = [*_NEEDED, "*.py"] if source.trust_remote_code else _NEEDED
    try:
        snapshot = snapshot_download(
            source.source,
            revision=commit or source.revision,
            local_files_only=commit is None,
            allow_patterns=patterns,
            ignore_patterns=_NOT_NEEDED,
            etag_timeout=_PATIENCE_S,
        )
    except (OSError, _HTTP_ERROR) as error:
        raise _refusal(source, error) from error
    return Path(snapshot), Path(snapshot).name


def _commit_on_hub(source: ModelSource) -> str | None:
    """Return the commit that a revision stands for now; None where the hub cannot be reached.

    Asked here because `snapshot_download` asks without a time limit.
    """
    try:
        return HfApi().model_info(source.source, revision=source.revision, timeout=_PATIENCE_S).sha
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise _refusal(source, error) from error
    except (OSError, _HTTP_ERROR):  # offline, refused, timed out, or the hub is down
        return None


def _refusal(source: ModelSource, error: Exception) -> ModelError:
    name = f"the model {source.source!r}"
    local = f"or a directory ({nearby(Path(source.source))})"
    if isinstance(error, GatedRepoError):
        return ModelError(f"{name} is gated", "accept its terms on the hub and run `hf auth login`", _SOURCE)
    if isinstance(error, RevisionNotFoundError):
        hint = "give a commit, tag or branch that the model's page on the hub lists"
        return ModelError(f"{name} has no revision {source.revision!r}", hint, ("model", "revision"))
    if isinstance(error, RepositoryNotFoundError):
        return ModelError(f"{name} is not on the hub, or private", f"give a hub id, {local}", _SOURCE)
    if isinstance(error, LocalEntryNotFoundError):
        return ModelError(
            f"{name} is not (or not all) in the local cache, and the hub cannot be reached",
            f"connect (and unset HF_HUB_OFFLINE), run `hf download {source.source}` where you can, {local}",
            _SOURCE,
        )
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ModelError(f"{name} cannot be fetched: {reason}", f"try again, {local}", _SOURCE)
