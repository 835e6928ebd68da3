from pathlib import Path

import pytest
from transformers import GPT2Config, LlamaConfig

from hpo.errors import ModelError
from hpo.models.depth import block_count
from hpo.study import ModelSource


def test_the_reference_model_has_two_blocks() -> None:
    assert block_count(ModelSource(source="reference")) == 2


@pytest.mark.parametrize("config", [GPT2Config(n_layer=5), LlamaConfig(num_hidden_layers=5)])
def test_a_configuration_tells_its_blocks_whatever_it_calls_them(
    config: GPT2Config | LlamaConfig, tmp_path: Path
) -> None:
    config.save_pretrained(tmp_path)
    assert block_count(ModelSource(source=str(tmp_path))) == 5


def test_a_configuration_that_does_not_tell_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ModelError, match="does not tell its number of blocks"):
        block_count(ModelSource(source=str(tmp_path)))
