"""Numbers a surrogate may learn from, all known before anything is run."""

import numpy as np

from hpo.compress.plan import Plan
from hpo.compress.profile import Array, ModelProfile


def names(profile: ModelProfile) -> tuple[str, ...]:
    """Return the names of the columns of `features`."""
    types = profile.architecture.types
    return ("kept", "bytes", "macs", "damage_attention", "damage_mlp", *(f"kept_{t}" for t in types))


def features(profile: ModelProfile, plan: Plan, damage: Array) -> Array:
    """Return shares in about [0, 1]: weights kept, bytes and MACs against dense, and predicted damage.

    Damage is the share of (whitened) spectral energy cut off, as a root mean square over a group: the
    relative error of the layers' weights or outputs. `damage` holds it for every layer.
    """
    architecture = profile.architecture
    dense_bytes = architecture.other_bytes + architecture.linear_parameters * architecture.weight_bits // 8
    dense_macs = architecture.other_macs + architecture.context * architecture.linear_parameters
    squared = np.square(damage)
    attention = profile.is_attention
    parameters = np.array([layer.costs.parameters for layer in plan.layers], dtype=float)
    kept = np.bincount(profile.type_index, weights=parameters) / profile.type_parameters
    return np.array(
        [
            plan.linear_parameters / architecture.linear_parameters,
            plan.weight_bytes / dense_bytes,
            # An MPO contracted core by core may need many times the dense operations.
            min(plan.prefill_macs / dense_macs, 4.0),
            _root_mean(squared[attention]),
            _root_mean(squared[~attention]),
            *kept,
        ]
    )


def damage_of(features_NF: Array) -> Array:
    """Return the predicted damage to the whole model, (N, 1), from rows of `features`: the root mean square
    of that to attention and that to the MLP."""
    found: Array = np.sqrt(np.square(features_NF[:, 3:5]).mean(axis=1, keepdims=True))
    return found


def _root_mean(squared: Array) -> float:
    return float(np.sqrt(squared.mean())) if len(squared) else 0.0
