"""Exported directories are whole, load elsewhere, and are the model that was measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from hpo.compress.layers import LowRankLinear
from hpo.deliver import export as exporting
from hpo.deliver import remote_code
from hpo.deliver.export import export, merged
from hpo.deliver.form import Form
from hpo.deliver.verify import expected_bytes
from hpo.errors import HpoError, Unsupported, UsageError
from tests.deliver.building import FURTHER, names
from tests.deliver.conftest import FAMILIES, KINDS, Home, Sample

Samples = dict[tuple[str, int, Form], Sample]

CASES = [("tiny", number, form) for number in range(len(KINDS)) for form in Form]
CASES += [(family, 1, form) for family in FAMILIES for form in Form] + [("gpt2", 2, Form.FACTORED)]
CASES += [("few_bits", number, form) for number in (1, 2) for form in Form]
CASES += [("cache", 1, Form.FACTORED)]
CASES += [("sliced", number, Form.FACTORED) for number in (1, 2)]
CASES += [("further", number + 1, form) for number in range(len(FURTHER)) for form in Form]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_a_fresh_process_finds_the_model_that_was_rebuilt(
    samples: Samples, case: tuple[str, int, Form]
) -> None:
    found = samples[case].found
    assert found["error"] <= 1e-4
    assert found["keys"] == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}
    assert found["text"] == "def f(x): pass"


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_a_loaded_model_can_be_saved_generated_from_and_trained(
    samples: Samples, case: tuple[str, int, Form]
) -> None:
    found = samples[case].found
    assert found["second_error"] == found["error"]
    assert found["generated"]
    assert found["trainable"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_weight_files_hold_what_the_plan_says_and_a_header(
    samples: Samples, case: tuple[str, int, Form]
) -> None:
    sample = samples[case]
    path = sample.exported.directory / "model.safetensors"
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert path.stat().st_size - header == expected_bytes(sample.rebuilt, sample.exported.form)


def test_the_plan_bytes_of_a_factored_file_are_the_weight_memory_that_was_measured(samples: Samples) -> None:
    for number in (1, 2, 3):
        rebuilt = samples["tiny", number, Form.FACTORED].rebuilt
        assert expected_bytes(rebuilt, Form.FACTORED) == rebuilt.trial.value("weight_memory")


def test_the_rebuilt_weight_of_a_cached_mpo_is_not_stored(samples: Samples) -> None:
    rebuilt = samples["tiny", 4, Form.FACTORED].rebuilt
    in_memory = rebuilt.trial.value("weight_memory")
    assert in_memory is not None
    assert expected_bytes(rebuilt, Form.FACTORED) < in_memory


def test_factored_is_smaller_than_dense_and_dense_as_large_as_the_base(samples: Samples) -> None:
    for number in (1, 2, 3, 4):
        factored, dense = (samples["tiny", number, form].exported for form in (Form.FACTORED, Form.DENSE))
        assert factored.bytes < 0.8 * dense.bytes
        assert dense.bytes == samples["tiny", 0, Form.DENSE].exported.bytes


def test_only_the_factored_form_needs_trust_and_says_so(samples: Samples) -> None:
    for (_, number, _), sample in samples.items():
        config = json.loads((sample.exported.directory / "config.json").read_text())
        code = "modeling_compressed.py" in sample.exported.files
        if sample.exported.form is Form.FACTORED:
            assert number > 0
            assert code
            assert "trust_remote_code" in sample.found["refusal"]
            assert sample.found["class"].startswith("Compressed")
        else:
            assert not code
            assert sample.found["refusal"] == ""
            assert "auto_map" not in config
            assert "compression" not in config


def test_tied_embeddings_stay_tied_and_untied_ones_untied(samples: Samples) -> None:
    for form in Form:
        assert samples["tiny", 1, form].found["tied"]
        assert samples["gpt2", 1, form].found["tied"]
        assert not samples["llama", 1, form].found["tied"]


def test_a_dense_trial_is_written_plain_whatever_form_is_asked(samples: Samples) -> None:
    assert samples["tiny", 0, Form.FACTORED].exported.form is Form.DENSE


def test_a_packed_cache_is_in_the_factored_form_alone(home: Home, samples: Samples, tmp_path: Path) -> None:
    model = samples["cache", 1, Form.FACTORED].rebuilt.model
    out = model(input_ids=torch.arange(20)[None], use_cache=True)
    assert type(out.past_key_values).__name__ == "PackedCache"
    with pytest.raises(Unsupported, match=r"not in few bits[\s\S]*--form factored"):
        home.export("cache", 1, tmp_path / "dense", Form.DENSE)
    assert not (tmp_path / "dense").exists()


def test_a_sliced_model_is_untied_and_in_the_factored_form_alone(
    home: Home, samples: Samples, tmp_path: Path
) -> None:
    for number in (1, 2):
        assert not samples["sliced", number, Form.FACTORED].found["tied"]
        with pytest.raises(Unsupported, match=r"one width[\s\S]*--form factored"):
            home.export("sliced", number, tmp_path / "dense", Form.DENSE)
        assert not (tmp_path / "dense").exists()


def test_the_checksums_cover_every_other_file(samples: Samples) -> None:
    exported = samples["tiny", 1, Form.FACTORED].exported
    lines = (exported.directory / "SHA256SUMS").read_text().splitlines()
    assert {line.split("  ")[1] for line in lines} == names(exported.directory) - {"SHA256SUMS"}
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=exported.directory, check=False)
    assert done.returncode == 0


def test_every_file_may_be_read_by_whom_the_umask_lets(samples: Samples, tmp_path: Path) -> None:
    directory = samples["tiny", 1, Form.FACTORED].exported.directory
    (tmp_path / "plain").touch()
    (tmp_path / "folder").mkdir()
    usual = (tmp_path / "plain").stat().st_mode & 0o777
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {usual}
    assert directory.stat().st_mode & 0o777 == (tmp_path / "folder").stat().st_mode & 0o777


def test_the_code_needs_no_package_but_torch_and_transformers(samples: Samples) -> None:
    code = (samples["gpt2", 1, Form.FACTORED].exported.directory / "modeling_compressed.py").read_text()
    words = [line.split() for line in code.splitlines() if line.startswith(("import ", "from "))]
    imported = {found[1].split(".")[0] for found in words}
    assert {"torch", "transformers"} <= imported
    assert imported <= {"torch", "transformers", *sys.stdlib_module_names}
    assert "class CompressedGPT2LMHeadModel(GPT2LMHeadModel)" in code


def test_no_file_names_a_place_on_this_machine(samples: Samples, home: Home) -> None:
    for sample in samples.values():
        for path in sample.exported.directory.iterdir():
            assert str(home.root).encode() not in path.read_bytes(), path


def test_an_existing_directory_or_file_is_refused_before_any_work(home: Home, tmp_path: Path) -> None:
    rebuilt = home.rebuilt("tiny", 1)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before = names(tmp_path)
    for name in sorted(before):
        with pytest.raises(UsageError, match="exists"):
            export(rebuilt, home.record("tiny"), None, tmp_path / name, Form.FACTORED)
    assert names(tmp_path) == before
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("step", ["_write_model", "_write_sums", "_extend_config"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("a bug")])
def test_nothing_is_left_when_writing_fails(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    def fail(directory: Path, *more: object) -> None:
        raise error

    monkeypatch.setattr(exporting, step, fail)
    rebuilt = home.rebuilt("tiny", 1)
    wanted: type[Exception] = HpoError if isinstance(error, OSError) else RuntimeError
    with pytest.raises(wanted, match=r"No space|a bug"):
        export(rebuilt, home.record("tiny"), None, tmp_path / "new", Form.FACTORED)
    assert names(tmp_path) == set()


def test_a_place_that_cannot_be_written_is_an_error_in_words(home: Home, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HpoError, match="cannot be written"):
        export(home.rebuilt("tiny", 1), home.record("tiny"), None, tmp_path / "file" / "new", Form.FACTORED)


def test_a_target_that_appears_meanwhile_is_not_overwritten(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "new"
    before = exporting._write_sums

    def slow(directory: Path) -> None:
        before(directory)
        target.mkdir()

    monkeypatch.setattr(exporting, "_write_sums", slow)
    with pytest.raises(UsageError, match="exists"):
        export(home.rebuilt("tiny", 1), home.record("tiny"), None, target, Form.FACTORED)
    assert names(tmp_path) == {"new"}
    assert names(target) == set()


class Foreign(nn.Module):
    """A model class that transformers does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Foreign


def test_a_model_with_code_of_its_own_is_refused() -> None:
    with pytest.raises(Unsupported, match="Foreign is not a class of transformers"):
        remote_code.check_exportable(Foreign())


class _Block(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer


@pytest.mark.parametrize("transposed", [False, True])
def test_merging_multiplies_factors_out_in_float32_and_leaves_them_alone(transposed: bool) -> None:
    left = torch.tensor([[1.0, 2.0], [3.0, 1.0], [0.0, 5.0]], dtype=torch.bfloat16)
    right = torch.tensor([[1.0, 0.0], [2.0, 1.0]], dtype=torch.bfloat16)
    old = Conv1D(3, 2) if transposed else nn.Linear(2, 3)
    old = old.to(torch.bfloat16)
    dense = _Block(old)
    factored = LowRankLinear(left, right, old.bias.detach())
    plain = merged(_Block(factored), dense)
    weight = plain.layer.weight.T if transposed else plain.layer.weight
    # [1 2; 3 1; 0 5] times [1 0; 2 1], by hand
    assert weight.tolist() == [[5.0, 2.0], [5.0, 1.0], [10.0, 5.0]]
    assert weight.dtype == torch.bfloat16
    assert factored.left.dtype == torch.bfloat16
    assert type(plain.layer) is type(old)
    assert torch.equal(plain.layer.bias, old.bias)
