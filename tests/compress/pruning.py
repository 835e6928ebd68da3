"""Small models of many families, pruned, for the tests of the stage."""

from typing import Any

import torch
from torch import Tensor, nn

from hpo.compress.applying import compressed
from hpo.compress.modegpt_parts import Attention, Mlp, anatomy
from hpo.compress.plan import Plan
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.surgery import bias_of, weight_of
from hpo.models.dense import DenseModel
from hpo.space import Candidate
from tests.compress import small
from tests.compress.narrowing import profiler

FAMILIES = ("llama", "qwen2", "mistral", "gpt2", "opt", "neox")


def candidate(method: str, more: dict[str, Any] | None = None, **knobs: Any) -> Candidate:
    return Candidate.of({"prune": method, **{f"prune.{k}": v for k, v in knobs.items()}, **(more or {})})


def pruned(
    dense: DenseModel, method: str, more: dict[str, Any] | None = None, **knobs: Any
) -> tuple[Plan, nn.Module]:
    """Return a model that one method has pruned, and its plan; `more` are values of other stages."""
    base, asked = profiler(dense), candidate(method, more, **knobs)
    plan = plan_of(base.profile(preparations_of(asked)), asked)
    return plan, compressed(base, asked, plan)


def parts_of(dense: DenseModel) -> list[Mlp | Attention]:
    return list(anatomy(dense.module, profiler(dense).architecture).parts)


@torch.no_grad()
def silence(dense: DenseModel, part: Mlp | Attention, items: list[int]) -> None:
    """Set the weights and biases of some head groups or units to zero, wherever they are."""
    reads = weight_of(dense.module.get_submodule(part.output))
    for number in items:
        columns = _channels(part, number)
        reads[:, columns] = 0
    for layer, rows in _rows(dense, part, items):
        weight_of(layer)[rows] = 0
        bias = bias_of(layer)
        if bias is not None:
            bias[rows] = 0


def _channels(part: Mlp | Attention, number: int) -> Tensor:
    """Return what the output layer reads of an item."""
    if isinstance(part, Mlp):
        return torch.tensor([number])
    width = part.heads.queries // part.heads.keys * part.heads.size
    return number * width + torch.arange(width)


def _rows(dense: DenseModel, part: Mlp | Attention, items: list[int]) -> list[tuple[nn.Module, Tensor]]:
    """Return the rows of items in every layer that makes them."""
    found = []
    for number in items:
        if isinstance(part, Mlp):
            for name in part.inputs:
                layer = dense.module.get_submodule(name)
                found.append((layer, torch.arange(number, len(weight_of(layer)), part.width)))
            continue
        each = part.heads.queries // part.heads.keys
        for index, heads in enumerate((range(number * each, (number + 1) * each), [number], [number])):
            count = part.heads.queries if index == 0 else part.heads.keys
            layer_index, rows = part.wiring.rows(index, count, part.heads.size)
            layer = dense.module.get_submodule(part.inputs[layer_index])
            found.append((layer, rows[list(heads)].flatten()))
    return found


def silent(dense: DenseModel) -> dict[str, list[int]]:
    """Silence every other item of every part; return the items that still count, by path."""
    found = {}
    for part in parts_of(dense):
        items = part.width if isinstance(part, Mlp) else part.heads.keys
        silence(dense, part, list(range(0, items, 2)) if items > 1 else [])
        found[part.path] = list(range(1, items, 2)) if items > 1 else [0]
    return found


def generated(model: Any, *, cached: bool, tokens: int = 8) -> list[int]:
    """Return what a model writes greedily after a prompt."""
    ids = small.corpus(1).sequences[0][None, :6]
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        use_cache=cached,
        pad_token_id=0,
        eos_token_id=None,
    )
    written: list[int] = out[0].tolist()
    return written


def written_by_full_forwards(model: Any, tokens: int = 8) -> list[int]:
    """Return the same from a forward over everything for each token, without `generate`."""
    ids = small.corpus(1).sequences[0][None, :6]
    with torch.no_grad():
        for _ in range(tokens):
            logits = model(input_ids=ids, use_cache=False).logits
            ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], 1)
    found: list[int] = ids[0].tolist()
    return found
