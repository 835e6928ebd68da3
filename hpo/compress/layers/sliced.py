"""What stands around the linear layers of a model whose residual stream is turned and narrower.

Needs torch alone: exported models carry the files of this package. Letters: V vocabulary, D width of the
dense model, W width that is left; B sequences, T tokens.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hpo.compress.layers.compressed import Compressed
from hpo.compress.layers.narrow import NarrowLinear


class SlicedNorm(Compressed):
    """RMS norm without a scale: ``x / sqrt(|x|^2 / D + epsilon)``, D the dense width, however narrow x is.

    At full width this is the dense norm before its scale, in whatever basis x stands: turning a vector does
    not change its length.
    """

    kind = "sliced_norm"

    def __init__(self, width: int, epsilon: float) -> None:
        """`width` is the dense one."""
        super().__init__()
        self.width = width
        self.epsilon = epsilon

    def forward(self, hidden_states: Tensor) -> Tensor:
        """From (B, T, W) to the same; in float32 inside."""
        x = hidden_states.float()
        square = x.square().sum(-1, keepdim=True) / self.width
        return (x * torch.rsqrt(square + self.epsilon)).to(hidden_states.dtype)

    def size(self) -> dict[str, Any]:
        return {"width": self.width, "epsilon": self.epsilon}

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "SlicedNorm":
        return cls(size["width"], size["epsilon"])

    def extra_repr(self) -> str:
        return f"dense width {self.width}, epsilon {self.epsilon}"


class SlicedBlock(Compressed):
    """A block whose attention, MLP and next block read the residual stream in a basis each.

    Two matrices (W, W) take what bypasses attention and MLP from one basis to the next. Everything else are
    the modules of the block it replaces, under the same names; healing trains these, not the two matrices.
    """

    kind = "sliced_block"

    def __init__(self, old: nn.Module, to_mlp_WW: Tensor, to_next_WW: Tensor) -> None:
        super().__init__()
        for name, part in old.named_children():
            self.add_module(name, part)
        self.to_mlp = nn.Parameter(to_mlp_WW, requires_grad=False)
        self.to_next = nn.Parameter(to_next_WW, requires_grad=False)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """As a block of Llama: hidden states (B, T, W), and by name what its attention is given."""
        block: Any = self
        mixed, _ = block.self_attn(hidden_states=block.input_layernorm(hidden_states), **kwargs)
        hidden = hidden_states @ self.to_mlp + mixed
        found: Tensor = hidden @ self.to_next + block.mlp(block.post_attention_layernorm(hidden))
        return found

    def size(self) -> dict[str, Any]:
        return {"width": len(self.to_mlp)}

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "SlicedBlock":
        """Its parts are those of `old` at first; each has an entry of its own and is replaced."""
        shape = (size["width"], size["width"])
        return cls(old, torch.empty(shape), torch.empty(shape))


class NarrowEmbedding(nn.Embedding, Compressed):
    """A token embedding with fewer columns, and the output layer apart from it. Healing leaves it alone."""

    kind = "narrow_embedding"

    def __init__(self, weight_VW: Tensor) -> None:
        vocabulary, width = weight_VW.shape
        super().__init__(vocabulary, width, device="meta")
        self.weight = nn.Parameter(weight_VW, requires_grad=False)

    def connect(self, model: nn.Module) -> None:
        """Untie the output layer: it reads another basis, and holds the scale of the last norm."""
        untie(model)

    def size(self) -> dict[str, Any]:
        return {"vocabulary": self.num_embeddings, "width": self.embedding_dim}

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "NarrowEmbedding":
        return cls(torch.empty(size["vocabulary"], size["width"]))


class NarrowHead(NarrowLinear):
    """An output layer with fewer inputs. Healing leaves it alone."""

    kind = "narrow_head"

    def factors(self) -> list[nn.Parameter]:
        return []


def untie(model: Any) -> None:
    """Let a model of transformers not tie its output layer to its embedding, now or when it is loaded."""
    model.config.tie_word_embeddings = False
    model.all_tied_weights_keys = {}
