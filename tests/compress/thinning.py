"""Candidates with zeros, and where the zeros of a model are, for the tests of the stage ``sparsify``."""

from typing import Any

from torch import Tensor, nn

from hpo.compress.applying import compressed
from hpo.compress.layers import MaskedLinear, SparseLinear, SparseLowRankLinear
from hpo.compress.plan import Plan
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.sparse_plan import Sparse
from hpo.space import Candidate, Value

FACTORS: dict[str, Value] = {"factorise": "whitened_svd", "factorise.keep_ratio": 0.6}
NARROW: dict[str, Value] = {"factorise": "modegpt", "factorise.keep_ratio": 0.6}


def asked(method: str = "magnitude", before: dict[str, Any] | None = None, **knobs: Any) -> Candidate:
    return Candidate.of(
        {**(before or {}), "sparsify": method, **{f"sparsify.{name}": value for name, value in knobs.items()}}
    )


def planned(base: Profiler, candidate: Candidate) -> Plan:
    return plan_of(base.profile(preparations_of(candidate)), candidate)


def made(base: Profiler, candidate: Candidate) -> nn.Module:
    return compressed(base, candidate, planned(base, candidate))


def weights(model: nn.Module, plan: Plan) -> dict[str, Tensor]:
    """Return the matrices of the layers of one matrix that have zeros, however they are held."""
    found = {}
    for shape, layer in plan.named():
        module = model.get_submodule(shape.name)
        if isinstance(layer, Sparse) and isinstance(module, MaskedLinear | SparseLinear):
            found[shape.name] = module.dense_weight().detach()
    return found


def zeros(model: nn.Module) -> dict[str, Tensor]:
    """Return which weights of every matrix with zeros are zero, by path."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, MaskedLinear | SparseLinear):
            found[name] = module.dense_weight() == 0
        elif isinstance(module, SparseLowRankLinear):
            found[f"{name}.left"] = module.left.whole() == 0
            found[f"{name}.right"] = module.right.whole() == 0
    return found
