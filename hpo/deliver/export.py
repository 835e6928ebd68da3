"""Write the model of a trial as a directory that `from_pretrained` of transformers loads.

Everything is written to a hidden sibling and renamed into place, so the directory is there whole, or not
at all::

    config.json, generation_config.json, tokenizer files, *.safetensors
    modeling_compressed.py    the factored form only
    README.md                 the model card
    verification.json         where it was asked for
    SHA256SUMS                of every other file; check with ``sha256sum -c SHA256SUMS``
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hpo.compress.layers import Compressed, PackedCaching, SlicedNorm
from hpo.compress.surgery import replace, shared_copy
from hpo.deliver import remote_code
from hpo.deliver.biases import give_biases
from hpo.deliver.card import Card
from hpo.deliver.form import Form
from hpo.deliver.rebuild import Rebuilt
from hpo.deliver.verify import Verification, verify
from hpo.errors import HpoError, Unsupported, UsageError
from hpo.models.cache import sha256
from hpo.models.progress import without_bars
from hpo.store.values import StudyRecord
from hpo.trial import Trial

VERIFICATION = "verification.json"
SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Exported:
    """A model that was written."""

    directory: Path
    form: Form
    files: tuple[str, ...]
    """Names, sorted."""
    verification: Verification | None
    """None where none was asked for."""

    @property
    def bytes(self) -> int:
        """Size of the weight files."""
        return sum(path.stat().st_size for path in self.directory.glob("*.safetensors"))


def refuse_existing(target: Path) -> None:
    """Refuse to write over anything.

    Raises:
        UsageError: there is something at `target`.
    """
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} exists", "name a new directory with --out; nothing is overwritten")


def export(
    rebuilt: Rebuilt,
    record: StudyRecord,
    dense_trial: Trial | None,
    target: Path,
    form: Form,
    *,
    check: bool = False,
) -> Exported:
    """Write a rebuilt model to `target`; with `check`, reload it in a fresh process and measure again.

    A model without any factored layer is written in the dense form whatever is asked. The directory
    stays when the check fails; the result says so.

    Raises:
        UsageError: `target` exists.
        Unsupported: the model's classes are not of transformers.
        HpoError: the directory cannot be written. Nothing is left behind then.
    """
    refuse_existing(target)
    form = form if remote_code.has_factors(rebuilt.model) else Form.DENSE
    remote_code.check_exportable(rebuilt.dense.module)
    with _written_whole(target) as directory:
        _write_model(rebuilt, directory, form)
        verification = verify(rebuilt, directory, form) if check else None
        if verification is not None:
            _write_json(directory / VERIFICATION, verification.to_mapping())
        card = Card(rebuilt, record, dense_trial, form, target.name, verification)
        (directory / "README.md").write_text(card.text(), encoding="utf-8")
        _write_sums(directory)
    files = tuple(sorted(path.name for path in target.iterdir()))
    return Exported(target, form, files, verification)


@contextmanager
def _written_whole(target: Path) -> Iterator[Path]:
    """Give an empty directory that becomes `target` if the block ends well, and vanishes otherwise."""
    target = target.absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.tmp-", dir=target.parent))
        try:
            yield partial
            _open_up(partial)
            refuse_existing(target)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # gone already when all went well
    except OSError as error:
        raise HpoError(
            f"{target} cannot be written: {error}", "name a place with room that you may write to"
        ) from error


def _open_up(directory: Path) -> None:
    """Let others read what the user's umask lets them; temporary directories and safetensors are private."""
    probe = directory / ".mode"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in directory.iterdir():
        path.chmod(mode)
    directory.chmod(mode | 0o700 | (mode & 0o044) >> 2)


def _write_model(rebuilt: Rebuilt, directory: Path, form: Form) -> None:
    """Write weights, configuration, tokenizer and, for the factored form, its code."""
    model = rebuilt.model if form is Form.FACTORED else merged(rebuilt.model, rebuilt.dense.module)
    with without_bars():
        # In the names the modules have: a compressed model type takes no part in renaming on load.
        model.save_pretrained(directory, save_original_format=form is Form.DENSE)
    rebuilt.dense.tokenizer.save_pretrained(directory)
    if form is Form.FACTORED:
        code = directory / f"{remote_code.MODULE}.py"
        code.write_text(remote_code.source(model, rebuilt.dense.module), encoding="utf-8")
        _extend_config(directory / "config.json", remote_code.configuration(model, rebuilt.plan.hash))


def merged(model: Any, dense: nn.Module) -> Any:
    """Return a copy of a compressed model whose factors are multiplied out into layers like `dense`'s.

    Products are taken in float32 and stored in the precision of the factors.

    Raises:
        Unsupported: a layer has a bias that the architecture of `dense` can have none of, or the model is of
            another width, or its cache is in few bits.
    """
    plain: Any = shared_copy(model)
    if any(isinstance(module, PackedCaching) for module in model.modules()):
        raise Unsupported(
            "the dense form keeps keys and values as transformers does, not in few bits",
            "export with --form factored, or a trial without the stage cache",
        )
    if any(isinstance(module, SlicedNorm) for module in model.modules()):
        raise Unsupported(
            "the dense form has one width and no matrices between bases, which a sliced model is made of",
            "export with --form factored, or a trial without slicegpt",
        )
    for name, layer in model.named_modules():
        parent = model.get_submodule(name.rpartition(".")[0])
        # One inside another, as below a kept adapter, goes with it.
        if isinstance(layer, Compressed) and not isinstance(parent, Compressed):
            replace(plain, name, layer.as_dense(dense.get_submodule(name)))
    give_biases(plain, model, dense)
    config = getattr(model, "config", None)
    if getattr(config, "tie_word_embeddings", False):  # a dense embedding comes with a copy as the head
        plain.tie_weights()
    return plain


def _extend_config(path: Path, keys: dict[str, Any]) -> None:
    _write_json(path, json.loads(path.read_text(encoding="utf-8")) | keys)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_sums(directory: Path) -> None:
    names = sorted(os.listdir(directory))
    lines = [f"{sha256(directory / name)}  {name}\n" for name in names]
    (directory / SUMS).write_text("".join(lines), encoding="utf-8")
