"""Synthetic model profiles of real sizes: shapes and spectra, no weights."""

import numpy as np

from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.profile import ModelProfile

_LLAMA_7B = (
    ("self_attn.q_proj", 4096, 4096, "self_attn.q_proj"),
    ("self_attn.k_proj", 4096, 4096, "self_attn.q_proj"),
    ("self_attn.v_proj", 4096, 4096, "self_attn.q_proj"),
    ("self_attn.o_proj", 4096, 4096, "self_attn.o_proj"),
    ("mlp.gate_proj", 11008, 4096, "mlp.gate_proj"),
    ("mlp.up_proj", 11008, 4096, "mlp.gate_proj"),
    ("mlp.down_proj", 4096, 11008, "mlp.down_proj"),
)


def llama_7b_profile(blocks: int = 32, seed: int = 0) -> ModelProfile:
    """Return a profile with the 224 linear layers of LLaMA-7B and power-law spectra with noise."""
    rng = np.random.default_rng(seed)
    layers = tuple(
        LayerShape(
            f"model.layers.{block}.{name}",
            out,
            inner,
            block,
            name.split("_")[0].split(".")[0],
            f"model.layers.{block}.{gram}",
        )
        for block in range(blocks)
        for name, out, inner, gram in _LLAMA_7B
    )
    layers = tuple(
        LayerShape(
            x.name, x.out_features, x.in_features, x.block, "attention" if "attn" in x.name else "mlp", x.gram
        )
        for x in layers
    )
    embedding = 2 * 32000 * 4096
    architecture = Architecture(layers, embedding, embedding * 2, embedding // 2 * 2048, 2048, 16)
    arrays = {
        basis: {x.name: _power_law(min(x.out_features, x.in_features), rng) for x in layers}
        for basis in ("plain", "whitened")
    }
    return ModelProfile(architecture, f"llama-7b-shaped-{seed}", arrays)


def _power_law(count: int, rng: np.random.Generator) -> np.ndarray:
    exponent = rng.uniform(0.3, 0.9)
    values = np.arange(1, count + 1) ** -exponent * np.exp(rng.normal(0, 0.05, count))
    return np.sort(values)[::-1]
