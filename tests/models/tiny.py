"""Tiny random models of several families, saved as directories with the tokenizer of bytes."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
)

from hpo.models.progress import without_bars
from hpo.models.reference import byte_tokenizer

POSITIONS = 64

_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": POSITIONS,
    "bos_token_id": None,
    "eos_token_id": None,
}


def configs() -> dict[str, Any]:
    """Return one small configuration of each family that must load."""
    return {
        "llama": LlamaConfig(**_SIZES, tie_word_embeddings=False),
        "llama_tied": LlamaConfig(**_SIZES, tie_word_embeddings=True),
        "mistral": MistralConfig(**_SIZES),
        "qwen2": Qwen2Config(**_SIZES),
        "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=POSITIONS, vocab_size=256),
        "gpt_neox": GPTNeoXConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            vocab_size=256,
            max_position_embeddings=POSITIONS,
        ),
        "opt": OPTConfig(
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            vocab_size=256,
            max_position_embeddings=POSITIONS,
            word_embed_proj_dim=32,
        ),
    }


def tiny_model(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def save(model: Any, directory: Path) -> Path:
    """Write a model and the tokenizer of bytes as transformers would, and return the directory."""
    with without_bars():
        model.save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return directory
