"""A study of a real, downloaded-elsewhere model, where it lies beside the repository."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Hpo

ASSETS = Path(__file__).parents[3] / "shared" / "assets"


@pytest.mark.skipif(not ASSETS.is_dir(), reason=f"no models and texts in {ASSETS}")
def test_the_front_of_stories260k_has_the_published_loss_of_its_dense_model(hpo: Hpo, tmp_path: Path) -> None:
    (tmp_path / "stories.yaml").write_text(f"""\
version: 1
name: stories
model: {{source: {ASSETS}/models/stories260K}}
data:
  calibration: {{text: {ASSETS}/text/wikitext2.train.sample.txt, tokens: 8192}}
  evaluation: {{documents: {ASSETS}/text/tinystories_clean.json, limit: 200}}
objectives: [{{metric: nll}}, {{metric: weight_memory}}]
space:
  factorise: {{type: choice, choices: [svd, whitened_svd]}}
  factorise.keep_ratio: {{type: float, low: 0.3, high: 0.95}}
search: {{sampler: sobol}}
budget: {{trials: 6}}
run: {{runner: in_process}}
""")
    front = json.loads(hpo("launch", "stories.yaml", "--json").stdout)
    assert len(front["members"]) >= 3
    dense = json.loads(hpo("show", "stories", "0", "--json").stdout)
    values = {m["metric"]: m["value"] for m in dense["measurements"]}
    assert dense["origin"] == "anchor:dense"
    assert values["nll"] == pytest.approx(1.536, abs=0.01)
    assert values["parameters"] == 260_032
