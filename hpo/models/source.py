"""Where a model comes from, and what can be said of it without loading a weight (or torch)."""

import difflib
import json
import re
from enum import StrEnum
from pathlib import Path

from hpo.errors import ModelError
from hpo.errors import Path as Where
from hpo.models.reference_text import library
from hpo.study import ModelSource

REFERENCE = "reference"
_WHERE: Where = ("model", "source")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class Origin(StrEnum):
    """The three places a model can come from."""

    REFERENCE = "reference"
    DIRECTORY = "directory"
    HUB = "hub"


def origin(source: ModelSource) -> Origin:
    """Return where `source` points. A directory that exists wins over a hub id of the same name.

    Raises:
        ModelError: it is neither an existing directory nor could it be a hub id.
    """
    if source.source == REFERENCE:
        return Origin.REFERENCE
    path = Path(source.source).expanduser()
    if path.is_dir():
        return Origin.DIRECTORY
    if path.exists():
        raise ModelError(f"the model {source.source!r} is a file", "name the directory it is in", _WHERE)
    if _HUB_ID.fullmatch(source.source):
        return Origin.HUB
    raise ModelError(f"there is no directory {source.source!r}", nearby(path), _WHERE)


def check_source(source: ModelSource) -> Origin:
    """Refuse what can be seen to be wrong without loading weights or using the network.

    A hub id is checked for its form only; that it exists is seen when it is loaded.

    Raises:
        ModelError: there is no such directory, or its model is not one this package loads.
        Unsupported: the reference model is named and this Python has no sources to train it on.
    """
    found = origin(source)
    if source.trust_remote_code and found is not Origin.HUB:
        raise ModelError(
            f"the model {source.source!r} is no hub model; only code of one commit on the hub can be trusted",
            "drop model.trust_remote_code; a directory may hold any code by the time it is loaded",
            ("model", "trust_remote_code"),
        )
    if found is Origin.REFERENCE:
        library()
    elif found is Origin.DIRECTORY:
        check_directory(Path(source.source).expanduser())
    return found


def check_directory(directory: Path) -> None:
    """Refuse a directory without a configuration, without safetensors, or with a quantized model.

    Raises:
        ModelError: which of them, and what to do.
    """
    config = _config(directory)
    if not any(directory.glob("*.safetensors")):
        raise _no_safetensors(directory)
    quantized = config.get("quantization_config")
    if quantized:
        method = quantized.get("quant_method", "unknown") if isinstance(quantized, dict) else "unknown"
        raise ModelError(
            f"the model in {directory} is quantized already ({method})",
            "name the model it was made from: ranks and bits are chosen from unquantized weights",
            _WHERE,
        )
    if config.get("is_encoder_decoder"):
        raise ModelError(
            f"the model in {directory} is an encoder-decoder ({config.get('model_type', 'unknown')})",
            "only decoder-only causal language models are compressed here",
            _WHERE,
        )


def nearby(path: Path) -> str:
    """Return a hint for a path that does not exist: names like it, or what does exist above it."""
    full = path.expanduser().absolute()
    above = next(p for p in full.parents if p.is_dir())  # the root is one
    missing = full.relative_to(above).parts[0]
    near = difflib.get_close_matches(missing, [p.name for p in above.iterdir()], n=3, cutoff=0.6)
    if near:
        return f"in {above}, did you mean {' or '.join(map(repr, near))}?"
    return f"{above} exists, {missing!r} in it does not"


def _config(directory: Path) -> dict[str, object]:
    path = directory / "config.json"
    if not path.is_file():
        raise ModelError(
            f"{directory} has no config.json",
            "name a directory that `save_pretrained` of transformers wrote",
            _WHERE,
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON and of UTF-8 alike
        raise ModelError(f"{path} is not JSON: {error}", "save the model again", _WHERE) from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object", "save the model again", _WHERE)
    return config


def _no_safetensors(directory: Path) -> ModelError:
    pickles = sorted(path.name for pattern in _PICKLES for path in directory.glob(pattern))
    if not pickles:
        return ModelError(f"{directory} has no weights (*.safetensors)", "save the model again", _WHERE)
    return ModelError(
        f"{directory} has its weights as pickles only ({', '.join(pickles[:3])}), which can run code",
        "if you trust them, convert once: load with transformers' from_pretrained and save_pretrained "
        "to a new directory, which writes safetensors",
        _WHERE,
    )
