"""The factor cache: built once, shared, capped, and rebuilt when torn."""

import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hpo.compress.bases import PLAIN, WHITENED
from hpo.compress.factors import FactorStore, cache_key
from hpo.compress.grams import collect_grams, collect_output_grams, gram_owners
from hpo.compress.mpo_basis import MpoBasis
from hpo.compress.mpo_bonds import largest_bond
from hpo.compress.mpo_plan import mpo
from hpo.compress.profile import ModelProfile
from hpo.compress.profiling import Profiler, build_profile
from hpo.compress.surgery import inspect, linear_layers, weight_of
from hpo.errors import HpoError, NonFinite, Unsupported
from hpo.models.dense import DenseModel
from tests.compress import small


def test_gram_matrices_are_the_sums_of_outer_products(llama: DenseModel) -> None:
    corpus = small.corpus(3)
    owners = gram_owners(llama.module, corpus)
    grams = collect_grams(llama.module, corpus, owners)
    seen: list[torch.Tensor] = []
    target = llama.module.get_submodule("model.layers.0.self_attn.q_proj")
    handle = target.register_forward_pre_hook(lambda _, args: seen.append(args[0].reshape(-1, 32).double()))
    with torch.no_grad():
        for sequence in corpus.sequences:
            llama.module(input_ids=sequence[None])
    handle.remove()
    expected = sum(x.T @ x for x in seen)
    assert torch.allclose(
        grams["model.layers.0.self_attn.q_proj"], torch.as_tensor(expected), rtol=1e-5, atol=1e-4
    )


def test_layers_that_read_the_same_tensor_share_one_gram_matrix(llama: DenseModel) -> None:
    owners = gram_owners(llama.module, small.corpus(1))
    first = "model.layers.0."
    assert (
        owners[f"{first}self_attn.k_proj"] == owners[f"{first}self_attn.v_proj"] == f"{first}self_attn.q_proj"
    )
    assert owners[f"{first}mlp.up_proj"] == f"{first}mlp.gate_proj"
    assert owners[f"{first}mlp.down_proj"] == f"{first}mlp.down_proj"
    assert len(set(owners.values())) == 8


def test_cached_factors_take_no_more_room_than_the_dense_layers(
    llama: DenseModel, profile: ModelProfile
) -> None:
    store = FactorStore(profile.key)
    dense = profile.architecture.linear_parameters
    for basis in ("plain", "whitened", "mpo2-ascending", "mpo3-ascending", "mpo4-ascending"):
        stored = sum(
            t.numel() for layer in profile.architecture.layers for t in store.load(basis, layer.name).values()
        )
        assert 0.5 * dense < stored <= dense


def test_the_largest_bond_is_the_last_that_saves_weights(profile: ModelProfile) -> None:
    for layer in profile.architecture.layers:
        for sites in (2, 3, 4):
            shape = (layer.out_features, layer.in_features, sites)
            bond = largest_bond(*shape)
            assert mpo(*shape, bond).kind == "mpo"
            assert mpo(*shape, bond + 1).kind == "dense" or mpo(*shape, bond + 1) == mpo(*shape, bond)


def test_spectra_are_those_of_the_weights(llama: DenseModel, profile: ModelProfile) -> None:
    for layer, spectrum in zip(profile.architecture.layers, profile.spectra("plain"), strict=True):
        expected = torch.linalg.svdvals(llama.module.get_submodule(layer.name).weight.double())
        assert np.allclose(spectrum, expected.numpy(), atol=1e-6)


def test_a_profile_is_computed_once_and_read_afterwards(
    llama: DenseModel, profile: ModelProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a factor was computed again")

    monkeypatch.setattr("hpo.compress.bases.factor", fail)
    monkeypatch.setattr("hpo.compress.mpo_basis.full_cores", fail)
    monkeypatch.setattr("hpo.compress.grams.collect_grams", fail)
    again = build_profile(llama, small.corpus(), small.CONTEXT, [PLAIN, WHITENED, MpoBasis(2)])
    assert again.key == profile.key
    assert np.array_equal(again.spectra("whitened")[0], profile.spectra("whitened")[0])


def test_a_torn_entry_is_noticed_and_built_again(profile: ModelProfile) -> None:
    dense = small.dense_model("llama", digest="torn")
    corpus = small.corpus()
    first = build_profile(dense, corpus, small.CONTEXT, [PLAIN])
    store = FactorStore(first.key)
    victim = store.directory("plain") / f"{first.architecture.layers[0].name}.safetensors"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    build_profile(dense, corpus, small.CONTEXT, [PLAIN])
    assert victim.read_bytes() == whole


def _build(root: str, results: "multiprocessing.Queue[str]") -> None:
    import os

    os.environ["HPO_CACHE"] = root
    torch.set_num_threads(1)
    profile = build_profile(small.dense_model("llama"), small.corpus(), small.CONTEXT, [PLAIN, WHITENED])
    results.put(profile.key)


def test_an_entry_that_is_torn_while_it_is_in_use_fails_by_name_once(
    llama: DenseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_CACHE", str(tmp_path))
    profiler = Profiler(llama, small.corpus(3), small.CONTEXT)
    profiler.prepare([PLAIN])
    name = "model.layers.0.self_attn.q_proj"
    path = profiler.store.directory(PLAIN.name) / f"{name}.safetensors"
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[:100])
    with pytest.raises(HpoError, match=r"is damaged(.|\n)*built again"):
        profiler.store.load(PLAIN.name, name)
    profiler.materials([PLAIN])
    assert path.read_bytes() == whole


def test_two_processes_that_build_the_same_cache_do_not_spoil_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[str] = context.Queue()
    processes = [context.Process(target=_build, args=(str(tmp_path), results)) for _ in range(2)]
    for process in processes:
        process.start()
    keys = {results.get(timeout=120) for _ in processes}
    for process in processes:
        process.join(timeout=60)
    assert len(keys) == 1
    files = sorted((tmp_path / "factors" / keys.pop() / "whitened").glob("*.safetensors"))
    assert len(files) == 14 + 1
    assert all(load_file(file) for file in files)
    shutil.rmtree(tmp_path / "factors")


def test_another_text_or_model_has_another_cache() -> None:
    assert len({cache_key("a", "b"), cache_key("a", "c"), cache_key("c", "b")}) == 3


def test_what_was_not_prepared_is_named(profile: ModelProfile) -> None:
    with pytest.raises(HpoError, match=r"'tucker' was not prepared for model\.layers\.0"):
        FactorStore(profile.key).load("tucker", "model.layers.0")
    with pytest.raises(HpoError, match="has no 'tucker'"):
        profile.tails("tucker")


def test_a_weight_that_is_not_finite_is_refused_by_name() -> None:
    dense = small.dense_model("llama")
    with torch.no_grad():
        dense.module.get_parameter("model.layers.1.mlp.up_proj.weight")[0, 0] = float("nan")
    with pytest.raises(NonFinite, match=r"model\.layers\.1\.mlp\.up_proj"):
        inspect(dense.module, small.CONTEXT, {})


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(Unsupported, match="no linear layer"):
        inspect(torch.nn.Sequential(torch.nn.Embedding(4, 4)), 4, {})


@pytest.mark.parametrize(
    ("family", "count"), [("llama", 14), ("gpt2", 8), ("neox", 8), ("opt", 12), ("qwen2", 14)]
)
def test_every_linear_layer_of_a_block_is_found_and_nothing_else(family: str, count: int) -> None:
    dense = small.dense_model(family)
    found = [name for name, _ in linear_layers(dense.module)]
    assert len(found) == count
    assert not any("head" in name or "embed" in name for name in found)
    architecture = inspect(dense.module, small.CONTEXT, {})
    total = sum(p.numel() for p in dense.module.parameters())
    assert architecture.other_parameters + architecture.linear_parameters == total
    assert {layer.group for layer in architecture.layers} == {"attention", "mlp"}
    assert architecture.blocks == 2


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_output_gram_matrices_are_those_of_the_products_without_bias(family: str) -> None:
    dense, corpus = small.dense_model(family), small.corpus(3)
    with torch.no_grad():
        for name, parameter in dense.module.named_parameters():
            if name.endswith("bias"):
                parameter.fill_(0.3)
    grams = collect_grams(dense.module, corpus, gram_owners(dense.module, corpus))
    owners = gram_owners(dense.module, corpus)
    outputs = collect_output_grams(dense.module, corpus)
    assert outputs
    for name, (found, energy) in outputs.items():
        W, G = weight_of(dense.module.get_submodule(name)).double(), grams[owners[name]]
        assert torch.allclose(found, W @ G @ W.T, rtol=1e-3, atol=1e-3 * float(found.abs().max()))
        assert float(energy) == pytest.approx(float(G.diagonal().mean()), rel=1e-4)
