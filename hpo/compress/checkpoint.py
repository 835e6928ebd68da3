"""A file that holds a snapshot: whole or not there, and never executable.

Tensors lie in safetensors, facts and a checksum over all of it in its header, as JSON. A file is written
beside its name, flushed and renamed, so that a kill or a full disk leaves the one before.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hpo.compress.snapshot import Misfit, Snapshot

_FORMAT = "1"
"""Raise it when the content of a checkpoint changes its meaning."""


def write(path: Path, snapshot: Snapshot, subject: str) -> None:
    """Write a snapshot of `subject`, in place of an earlier one.

    Raises:
        OSError: it cannot be written; the earlier one is still there.
    """
    # Copied, since a file holds each tensor by itself and some of them may share memory.
    tensors = {name: t.detach().cpu().clone().contiguous() for name, t in snapshot.tensors.items()}
    facts = json.dumps(dict(snapshot.facts))
    metadata = {"format": _FORMAT, "subject": subject, "facts": facts, "sha256": _digest(tensors, facts)}
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    partial = path.with_name(f"{_prefix(path)}{os.getpid()}")
    try:
        save_file(tensors, partial, metadata)
        _flush(partial)
        partial.replace(path)
        _flush(path.parent)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path, subject: str) -> Snapshot | None:
    """Return the snapshot of `subject` in a file; None where there is no file.

    Raises:
        Misfit: the file is damaged, or of something else.
        OSError: it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        return None
    except SafetensorError as error:
        raise Misfit(f"{path} is torn or no checkpoint: {error}") from error
    if (metadata.get("format"), metadata.get("subject")) != (_FORMAT, subject):
        raise Misfit(f"{path} is a checkpoint of something else, or of another version")
    facts = metadata.get("facts", "")
    if metadata.get("sha256") != _digest(tensors, facts):
        raise Misfit(f"{path} is damaged: its contents are not what was written")
    return Snapshot(tensors, json.loads(facts))


def sweep(path: Path) -> None:
    """Remove what killed writers of this file have left."""
    for stale in path.parent.glob(f"{_prefix(path)}*"):
        stale.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    return f".{path.name}.tmp-"


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"|{name} {tensor.dtype} {tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
