"""Memory and arithmetic: exact costs held against the model in hand, and the peak of one prefill."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hpo.errors import HpoError, Unsupported
from hpo.measure.device import fingerprint, synchronize
from hpo.measure.prefill import check_finite, prefill, prompt
from hpo.measure.probe import Subject
from hpo.metric import Source, metric
from hpo.trial import Measurement


class MemoryProbe:
    """What a model holds and what it needs, batch 1, eager.

    *Measures*: `weight_memory`, `parameters` and `macs` as the plan says, exact, once the first two
    have been found to be true of the model in hand; and `peak_memory`, weights and buffers plus the
    most that was alive at once beside them during one prefill over a full context. On CUDA that is
    what the allocator handed out (its own rounding and kernels' workspaces included). On a processor
    it is the sum of all tensors alive, looked at after every operation, so it is the same each time.

    `kv_cache_memory`, exact, once a cache that was filled with a full context has been found to hold just so
    many bytes.

    *Does not measure*: memory reserved but not handed out, the allocator's fragmentation, the CUDA
    context, key-value caches; on a processor also scratch space inside an operation (attention,
    matrix products), which is small beside its operands. MACs are not counted again here.

    *Unit*: bytes, parameters, MACs per token.
    """

    metrics = ("weight_memory", "parameters", "macs", "peak_memory", "kv_cache_memory")
    timed = False
    function_only = False

    def measure(self, subject: Subject, wanted: Sequence[str]) -> list[Measurement]:
        """Return the exact metrics, and `peak_memory` if it is wanted.

        Raises:
            HpoError: the plan's parameters or bytes are not those of the model.
            NonFinite: a logit is NaN or infinite.
        """
        with torch.no_grad():
            ids = prompt(subject.dense, subject.context, subject.device)
            # First of all, since some layers make what they keep in their first forward.
            check_finite(prefill(subject.model, ids), "a prefill")
            check_cost(subject)
            found = [
                Measurement.exact("weight_memory", subject.cost.weight_bytes),
                Measurement.exact("parameters", subject.cost.parameters),
                Measurement.exact("macs", subject.cost.prefill_macs / subject.context),
            ]
            if "kv_cache_memory" in wanted:
                check_cache(subject, ids)
                found.append(Measurement.exact("kv_cache_memory", subject.cost.kv_cache_bytes))
            if "peak_memory" in wanted:
                found.append(_peak(subject, ids))
        return found


@dataclass(frozen=True)
class Held:
    """What a model keeps between two forwards."""

    parameters: int
    """Numbers in parameters, a tied one once, and weights held in few bits (a layer's `packed_weights`)."""
    parameter_bytes: int
    buffer_bytes: int

    @classmethod
    def by(cls, model: nn.Module) -> "Held":
        parameters = list(model.parameters())
        packed = sum(int(getattr(module, "packed_weights", 0)) for module in model.modules())
        numbers = sum(p.numel() for p in parameters) + packed
        return cls(numbers, _bytes(parameters), _bytes(model.buffers()))


def check_cost(subject: Subject) -> None:
    """Hold the plan's parameters and weight bytes against the model, after its first forward.

    Weights are parameters and such buffers as the dense model does not have (a matrix rebuilt from
    its factors and kept); rotary tables and masks, which both have, are none.

    Raises:
        HpoError: a number differs; a plan that is wrong about its model must never be stored.
    """
    model, dense = Held.by(subject.model), Held.by(subject.dense)
    held_bytes = model.parameter_bytes + model.buffer_bytes - dense.buffer_bytes
    for what, planned, found in (
        ("parameters", subject.cost.parameters, model.parameters),
        ("bytes of weights", subject.cost.weight_bytes, held_bytes),
    ):
        if planned != found:
            raise HpoError(
                f"the plan counts {planned} {what}, the model has {found}",
                "the compression method and its plan disagree; this is a fault in the method, so report it",
            )


def check_cache(subject: Subject, ids: Tensor) -> None:
    """Hold the plan's bytes of the key-value cache against a cache in hand, filled with `ids`, (1, T).

    Raises:
        Unsupported: the model has no plain cache.
        HpoError: the bytes differ.
    """
    model: Any = subject.model
    cache = model(input_ids=ids, use_cache=True).past_key_values
    if not subject.cost.kv_cache_bytes:
        raise Unsupported(
            "the bytes of this model's key-value cache are not known",
            "its cache is no plain one of keys and values; drop kv_cache_memory from the objectives",
        )
    held = sum(_cache_bytes(layer) for layer in cache.layers)
    if held != subject.cost.kv_cache_bytes:
        raise HpoError(
            f"the plan counts {subject.cost.kv_cache_bytes} bytes of keys and values, the cache holds {held}",
            "the compression method and its plan disagree; this is a fault in the method, so report it",
        )


def _cache_bytes(layer: Any) -> int:
    packed = getattr(layer, "held_bytes", None)
    if packed is not None:
        return int(packed)
    return _bytes([layer.keys, layer.values]) if layer.is_initialized else 0


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _peak(subject: Subject, ids: Tensor) -> Measurement:
    held = Held.by(subject.model)
    if subject.device.startswith("cuda"):
        beside, how = _cuda_peak(subject, ids), "handed out by the allocator"
    else:
        beside, how = peak_of_tensors(subject.model, ids), "of tensors alive between operations"
    return Measurement(
        metric="peak_memory",
        value=float(held.parameter_bytes + held.buffer_bytes + beside),
        unit=metric("peak_memory").unit,
        source=Source.MEASURED,
        device=fingerprint(subject.device, torch.get_num_threads()),
        note=f"batch 1, {subject.context} tokens, eager, weights and buffers + {beside} bytes {how}",
    )


def _cuda_peak(subject: Subject, ids: Tensor) -> int:
    """Return how far one prefill rises above what was there before, which holds the dense model too."""
    device = subject.device
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = int(torch.cuda.memory_allocated(device))
    prefill(subject.model, ids)
    synchronize(device)
    peak = int(torch.cuda.max_memory_allocated(device))
    return peak - before


def peak_of_tensors(model: nn.Module, ids: Tensor) -> int:
    """Return the peak bytes of tensors beside the model's own, during one prefill over `ids`, (1, T).

    Call it without gradients: torch then shows the tracker every single operation.
    """
    own = [*model.parameters(), *model.buffers()]
    tracker = _TensorTracker(own)
    with tracker:
        prefill(model, ids)
    return tracker.peak


class _TensorTracker(TorchDispatchMode):
    """Sums the storages alive after every operation of this thread, except those of `own` tensors.

    A storage counts once, however many views it has. One that was there before, such as the token
    ids, counts from its first use with the bytes of the tensor used, since it may be a piece of a file.
    """

    def __init__(self, own: Iterable[Tensor]) -> None:
        super().__init__()
        # A weak reference keeps the address from being given to a new storage; the address is the key.
        self._own = {ref.cdata: ref for ref in map(_storage, own)}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._add(tensor, tensor.numel() * tensor.element_size())
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._add(tensor, tensor.untyped_storage().nbytes())
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result

    def _add(self, tensor: Tensor, size: int) -> None:
        ref = _storage(tensor)
        if ref.cdata not in self._own and ref.cdata not in self._alive:
            self._alive[ref.cdata] = (ref, size)


def _storage(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
