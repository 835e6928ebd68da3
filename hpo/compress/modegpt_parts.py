"""The parts of a model that can be cut narrower: its MLPs and the heads of its attention.

Letters: O output features, I input features, H heads, D dimensions of a head.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.layers.wiring import WIRINGS, Heads, Wiring
from hpo.compress.modegpt_plan import Grain
from hpo.compress.surgery import bias_of, weight_of

_MLPS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("gate_proj", "up_proj"), "down_proj"),
    (("gate_up_proj",), "down_proj"),
    (("c_fc",), "c_proj"),
    (("dense_h_to_4h",), "dense_4h_to_h"),
    (("fc1",), "fc2"),
)
"""Names of the layers into the units of an MLP, and out of them."""

_HOLDS_MORE = ("OPTDecoderLayer",)
"""Classes that hold an MLP's layers beside others, known to put nothing with weights between them."""


@dataclass(frozen=True)
class Mlp:
    """Units, each of which depends on the inputs alone and not on another unit."""

    path: str
    inputs: tuple[str, ...]
    """Paths of the layers that make the units; a fused one holds all gates, then all else."""
    output: str
    """Path of the layer that reads them."""
    width: int

    @property
    def layers(self) -> tuple[str, ...]:
        return (*self.inputs, self.output)

    def grains(self, shapes: Mapping[str, LayerShape], model: nn.Module) -> dict[str, Grain]:
        """Return what a unit is to each layer."""
        found = {self.output: Grain(mlp_columns=1, has_bias=0)}
        for name in self.inputs:
            each = shapes[name].out_features // self.width
            found[name] = Grain(mlp_rows=each, has_bias=_has_bias(model, name))
        return found


@dataclass(frozen=True)
class Attention:
    """Heads of a known class of attention."""

    path: str
    wiring: Wiring
    heads: Heads

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(f"{self.path}.{name}" for name in self.wiring.inputs)

    @property
    def output(self) -> str:
        return f"{self.path}.{self.wiring.output}"

    @property
    def layers(self) -> tuple[str, ...]:
        return (*self.inputs, self.output)

    @property
    def unit(self) -> int:
        """Dimensions of queries and keys that are kept or dropped together."""
        return 2 if self.wiring.is_rotary else 1

    @property
    def units(self) -> int:
        return self.heads.size // self.unit

    def has_bias(self, model: nn.Module) -> bool:
        """Return whether queries, keys or values have one."""
        return any(_has_bias(model, name) for name in self.inputs)

    def grains(self, model: nn.Module) -> dict[str, Grain]:
        """Return what a unit of each part is to each layer."""
        queries, keys = self.heads.queries, self.heads.keys
        turned = keys if self.wiring.is_rotary else 0
        has_bias = [_has_bias(model, name) for name in self.inputs]
        first = {"query_key_scores": queries * self.unit, "indices": turned}
        found = {self.output: Grain(value_columns=queries)}
        if self.wiring.is_fused:
            rows = (queries + keys) * self.unit
            found[self.inputs[0]] = Grain(rows, keys, has_bias=has_bias[0], **first)
            return found
        query, key, value = self.inputs
        found[query] = Grain(queries * self.unit, has_bias=has_bias[0], **first)
        found[key] = Grain(keys * self.unit, has_bias=has_bias[1])
        found[value] = Grain(value_rows=keys, has_bias=has_bias[2])
        return found

    def head_weight(self, model: nn.Module, part: int) -> tuple[Tensor, Tensor | None]:
        """Return weight (H, D, I) and bias (H, D) of the queries (part 0), keys (1) or values (2)."""
        count = self.heads.queries if part == 0 else self.heads.keys
        index, rows = self.wiring.rows(part, count, self.heads.size)
        layer = model.get_submodule(self.inputs[index])
        weight, bias = weight_of(layer).detach(), bias_of(layer)
        rows = rows.to(weight.device)
        return weight[rows], None if bias is None else bias[rows]


@dataclass(frozen=True)
class Anatomy:
    """Everything in a model that can be cut, and what cannot."""

    parts: tuple[Mlp | Attention, ...]
    unknown: Mapping[str, str]
    """Layers that are left as they are: path -> class of the module that they are part of."""


def anatomy(model: nn.Module, architecture: Architecture) -> Anatomy:
    """Find the parts of a model, whatever its class, among the layers of its blocks."""
    shapes = {layer.name: layer for layer in architecture.layers}
    owners = dict.fromkeys(_owner(name) for name in shapes)
    mlps: list[Mlp | Attention] = [found for path in owners for found in _mlps(model, path, shapes)]
    attentions: list[Mlp | Attention] = [
        found for path in owners for found in _attentions(model, path, shapes)
    ]
    parts = (*mlps, *attentions)
    cut = {name for part in parts for name in part.layers}
    unknown = {name: type(model.get_submodule(_owner(name))).__name__ for name in shapes if name not in cut}
    return Anatomy(parts, unknown)


def _mlps(model: nn.Module, path: str, shapes: Mapping[str, LayerShape]) -> Iterator[Mlp]:
    owner = model.get_submodule(path)
    for names, output in _MLPS:
        layers = [f"{path}.{name}" for name in (*names, output)]
        if not all(layer in shapes for layer in layers):
            continue
        weighted = {name for name, child in owner.named_children() if any(True for _ in child.parameters())}
        # Something with weights between the layers, such as a norm, could tie the units together.
        if weighted != {*names, output} and type(owner).__name__ not in _HOLDS_MORE:
            continue
        width = shapes[layers[-1]].in_features
        if all(shapes[layer].out_features == width * _fused(layer) for layer in layers[:-1]):
            yield Mlp(path, tuple(layers[:-1]), layers[-1], width)


def _fused(layer: str) -> int:
    return 2 if layer.endswith("gate_up_proj") else 1


def _attentions(model: nn.Module, path: str, shapes: Mapping[str, LayerShape]) -> Iterator[Attention]:
    owner = model.get_submodule(path)
    wiring = WIRINGS.get(type(owner).__name__)
    if wiring is None or getattr(owner, "is_cross_attention", False):
        return
    names = (*wiring.inputs, wiring.output)
    if all(f"{path}.{name}" in shapes for name in names):
        yield Attention(path, wiring, Heads.of(owner, wiring))


def _owner(layer: str) -> str:
    return layer.rpartition(".")[0]


def _has_bias(model: nn.Module, layer: str) -> int:
    return int(bias_of(model.get_submodule(layer)) is not None)
