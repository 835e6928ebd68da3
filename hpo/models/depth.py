"""How many blocks a model has, told by its configuration alone."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from hpo.errors import ModelError
from hpo.models.hub import fetch
from hpo.models.reference import reference_recipe
from hpo.models.remote_code import check_code
from hpo.models.source import Origin, origin
from hpo.study import ModelSource


def block_count(source: ModelSource) -> int:
    """Return the number of transformer blocks of a model. No weight is read.

    Raises:
        ModelError: there is no such model, or its configuration does not tell.
    """
    found = origin(source)
    if found is Origin.REFERENCE:
        return reference_recipe().layers
    directory = fetch(source)[0] if found is Origin.HUB else Path(source.source).expanduser()
    check_code(directory, source)
    config: Any = AutoConfig.from_pretrained(directory, trust_remote_code=source.trust_remote_code)
    blocks = getattr(config, "num_hidden_layers", None)  # transformers maps n_layer and the like to it
    if not isinstance(blocks, int) or blocks < 1:
        raise ModelError(
            f"the configuration of {source.source!r} does not tell its number of blocks",
            "name the parameters of each block one by one: name.0, name.1, ...",
            ("model", "source"),
        )
    return blocks
