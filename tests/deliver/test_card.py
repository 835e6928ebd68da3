"""The model card says what was done, what was measured, and what nobody may conclude."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from hpo.compress.applying import heal_seed
from hpo.compress.plan import HealPlan
from hpo.deliver.card import Card, base_licence
from hpo.deliver.form import Form
from hpo.metric import Source
from hpo.study import ModelSource
from hpo.trial import Measurement
from tests.deliver.conftest import Home, Sample

Samples = dict[tuple[str, int, Form], Sample]


def _card(sample: Sample) -> str:
    return (sample.exported.directory / "README.md").read_text()


def test_the_header_is_what_hubs_read(samples: Samples) -> None:
    header = yaml.safe_load(_card(samples["tiny", 1, Form.FACTORED]).split("---\n")[1])
    assert header["library_name"] == "transformers"
    assert header["pipeline_tag"] == "text-generation"
    assert "base_model" not in header  # the reference model is on no hub


def test_a_hub_model_is_named_with_its_commit(samples: Samples, home: Home) -> None:
    sample = samples["gpt2", 1, Form.FACTORED]
    base = replace(sample.rebuilt.dense, commit="c0ffee")
    model = ModelSource(source="acme/small", revision="main")
    study = sample.rebuilt.study.model_copy(update={"model": model})
    rebuilt = replace(sample.rebuilt, dense=base, study=study)
    text = Card(rebuilt, home.record("gpt2"), None, Form.FACTORED, "out").text()
    assert yaml.safe_load(text.split("---\n")[1])["base_model"] == "acme/small"
    assert "# acme/small at c0ffee (main), compressed" in text


def test_every_measurement_stands_beside_the_dense_one(samples: Samples) -> None:
    sample = samples["tiny", 2, Form.FACTORED]
    rows = [line.split("|")[1:-1] for line in _card(sample).splitlines() if line.startswith("| ")]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    for m in sample.rebuilt.trial.measurements:
        assert cells[m.metric][3:] == [str(m.repeats), str(m.source), m.device or "–"]
    ratio = float(cells["weight_memory"][2])
    plan = sample.rebuilt.plan
    dense = plan.architecture.other_bytes + 4 * plan.architecture.linear_parameters
    assert ratio == pytest.approx(plan.weight_bytes / dense, rel=1e-3)


def test_the_recipe_and_where_it_comes_from_are_complete(samples: Samples) -> None:
    sample = samples["tiny", 2, Form.FACTORED]
    rebuilt, text = sample.rebuilt, _card(sample)
    assert isinstance(rebuilt.plan.heal, HealPlan)
    for wanted in (
        "- `factorise`: whitened_svd",
        "- `heal.learning_rate`: 0.003",
        f"- plan: `{rebuilt.plan.hash}`",
        f"- seed of the healing: {heal_seed(rebuilt.plan)}",
        rebuilt.dense.digest,
        rebuilt.calibration_digest,
        rebuilt.evaluation.digest,
        "calibration text: reference, tokens 4096",
        rebuilt.study.hash,
        "torch ",
        "made again for this export from its recipe: nll ",
        "Not verified",
        "Does it come home whole?",
        "PSF licence",
    ):
        assert wanted in text
    for layer in rebuilt.plan.records():
        assert f"| `{layer.layer}` | {layer.kind} | {layer.size} | {layer.parameters:,} |" in text


def test_how_to_load_depends_on_the_form(samples: Samples) -> None:
    factored, dense = (_card(samples["tiny", 1, form]) for form in (Form.FACTORED, Form.DENSE))
    assert 'from_pretrained("tiny-1-factored", trust_remote_code=True)' in factored
    assert 'AutoModelForCausalLM.from_pretrained("tiny-1-dense")' in dense
    assert "trust_remote_code" not in dense
    assert "the cost of the dense model" in dense


def test_a_modelled_value_is_marked_and_warned_of(samples: Samples, home: Home) -> None:
    sample = samples["tiny", 1, Form.FACTORED]
    energy = Measurement("energy", 2.0, "mJ per token", Source.MODELLED, device="cpu: x", note="by bytes")
    trial = replace(sample.rebuilt.trial, measurements=(*sample.rebuilt.trial.measurements, energy))
    rebuilt = replace(sample.rebuilt, trial=trial)
    text = Card(rebuilt, home.record("tiny"), None, Form.FACTORED, "out").text()
    assert "| energy | 2 mJ per token | – | – | 1 | modelled | cpu: x |" in text
    assert "- energy: by bytes" in text
    assert "not from a meter" in text
    assert "not from a meter" not in _card(sample)


def test_figures_of_two_devices_get_no_ratio(samples: Samples, home: Home) -> None:
    sample = samples["tiny", 1, Form.FACTORED]
    dense = home.trial("tiny", 0)
    elsewhere = tuple(replace(m, device="cuda: y") for m in dense.measurements)
    card = Card(
        sample.rebuilt, home.record("tiny"), replace(dense, measurements=elsewhere), Form.FACTORED, "x"
    )
    row = next(line for line in card.text().splitlines() if line.startswith("| perplexity"))
    assert row.split("|")[4].strip() == "–"


def test_a_rebuilt_model_without_a_difference_is_called_equal(samples: Samples, home: Home) -> None:
    sample = samples["tiny", 1, Form.FACTORED]
    same = replace(sample.rebuilt, nll=sample.rebuilt.stored_nll)
    assert "equal to the bit" in Card(same, home.record("tiny"), None, Form.FACTORED, "out").text()


def test_a_difference_that_arithmetic_does_not_explain_is_told(samples: Samples, home: Home) -> None:
    sample = samples["tiny", 1, Form.FACTORED]
    off = replace(sample.rebuilt, nll=sample.rebuilt.stored_nll * 1.005)
    text = Card(off, home.record("tiny"), None, Form.FACTORED, "out").text()
    assert "a relative difference of +0.005: **more than arithmetic explains" in text


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n# A model\n", "mit"),
        ("---\nlicense: [mit]\n---\n", None),
        ("---\nlicense: : :\n---\n", None),
        ("# No header\n---\nlicense: mit\n---\n", None),
        (None, None),
    ],
)
def test_the_licence_is_that_of_the_base_models_card(
    tmp_path: Path, card: str | None, licence: str | None
) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert base_licence(tmp_path, SimpleNamespace()) == licence


def test_the_configuration_may_name_the_licence(tmp_path: Path) -> None:
    assert base_licence(tmp_path, SimpleNamespace(license="apache-2.0")) == "apache-2.0"
