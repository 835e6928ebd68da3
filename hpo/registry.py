"""One literal table: kind -> name -> ``module:Class``. Then what other distributions add by entry point.

Adding an entry is one line here (or an entry point in the group ``compression_hpo.<kind>``) and one
file. Nothing is imported until it is asked for; a failed import is an error, never a silent absence.
"""

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal

from hpo.errors import NotFound, Unsupported, did_you_mean

Kind = Literal["sampler", "method", "probe", "runner"]

_TABLE: dict[Kind, dict[str, str]] = {
    "sampler": {
        "sobol": "hpo.search.sobol:SobolSampler",
        "tpe": "hpo.search.optuna_samplers:TpeSampler",
        "bayesian": "hpo.search.bayesian:BayesianSampler",
        "optuna-gp": "hpo.search.optuna_samplers:OptunaGpSampler",
        "nsga2": "hpo.search.genetic:Nsga2Sampler",
        "grid": "hpo.search.grid:GridSampler",
    },
    "method": {
        "plain": "hpo.compress.train:Plain",
        "concentration": "hpo.compress.train:Concentration",
        "stable_rank": "hpo.compress.train:StableRank",
        "nuclear_norm": "hpo.compress.train:NuclearNorm",
        "wanda_sp": "hpo.compress.prune:WandaSp",
        "flap": "hpo.compress.flap:Flap",
        "llm_pruner": "hpo.compress.prune_taylor:LlmPruner",
        "drop_blocks": "hpo.compress.prune_blocks:DropBlocks",
        "slicegpt": "hpo.compress.slicegpt:SliceGpt",
        "svd": "hpo.compress.svd:Svd",
        "whitened_svd": "hpo.compress.svd:WhitenedSvd",
        "asvd": "hpo.compress.weighted_svd:Asvd",
        "fwsvd": "hpo.compress.weighted_svd:Fwsvd",
        "laser": "hpo.compress.laser:Laser",
        "mpo": "hpo.compress.mpo:Mpo",
        "basis_sharing": "hpo.compress.basis_sharing:BasisSharing",
        "modegpt": "hpo.compress.modegpt:Modegpt",
        "tt_embedding": "hpo.compress.tt_embedding:TensorTrainEmbedding",
        "eora": "hpo.compress.corrected:Eora",
        "caldera": "hpo.compress.corrected:Caldera",
        "lplr": "hpo.compress.corrected:Lplr",
        "magnitude": "hpo.compress.sparsify:Magnitude",
        "wanda": "hpo.compress.sparsify:Wanda",
        "sparsegpt": "hpo.compress.sparsify:SparseGpt",
        "int8": "hpo.compress.int8:DynamicInt8",
        "rtn": "hpo.compress.quantize:RoundNearest",
        "gptq": "hpo.compress.gptq:Gptq",
        "awq": "hpo.compress.awq:Awq",
        "nf4": "hpo.compress.nf4:Nf4",
        "squeezellm": "hpo.compress.squeezellm:SqueezeLlm",
        "ternary": "hpo.compress.ternary:TernaryWeights",
        "kivi": "hpo.compress.cache:Kivi",
        "fine_tune": "hpo.compress.heal:FineTune",
        "distil": "hpo.compress.heal:Distil",
        "lora": "hpo.compress.adapters:Lora",
        "lora_fa": "hpo.compress.adapters:LoraFa",
        "dora": "hpo.compress.adapters:Dora",
        "adalora": "hpo.compress.adapters:AdaLora",
        "loretta": "hpo.compress.loretta:Loretta",
        "nested": "hpo.compress.nested:Nested",
        "straight_through": "hpo.compress.straight_through:StraightThrough",
    },
    "probe": {
        "quality": "hpo.measure.quality:QualityProbe",
        "latency": "hpo.measure.latency:LatencyProbe",
        "memory": "hpo.measure.memory:MemoryProbe",
        "energy": "hpo.measure.energy:EnergyProbe",
    },
    "runner": {"in_process": "hpo.run.in_process:InProcessRunner", "ray": "hpo.run.on_ray:RayRunner"},
}


@cache
def _targets(kind: Kind) -> dict[str, str]:
    added = {point.name: point.value for point in entry_points(group=f"compression_hpo.{kind}")}
    return {**added, **_TABLE[kind]}


def names(kind: Kind) -> tuple[str, ...]:
    """Return every registered name of a kind, sorted."""
    return tuple(sorted(_targets(kind)))


def load(kind: Kind, name: str) -> Any:
    """Import and return the class registered under `name`.

    Raises:
        NotFound: there is no such name.
        Unsupported: its module cannot be imported here.
    """
    targets = _targets(kind)
    if name not in targets:
        raise NotFound(f"unknown {kind} {name!r}", did_you_mean(name, targets))
    module, _, attribute = targets[name].partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("hpo"):
            raise  # a fault of ours, not a missing package
        raise Unsupported(
            f"the {kind} {name!r} needs a package that is missing: {error}",
            f"install {error.name or 'it'} (pip install 'compression-hpo' with its extras)",
        ) from error
