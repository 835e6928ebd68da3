"""What layers read over a calibration text: Gram matrices G = sum of x x' over its tokens, and mean |x|."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hpo.compress.surgery import bias_of, linear_layers, weight_of
from hpo.measure.quiet import QuietNode
from hpo.models.cache import build_once
from hpo.models.text import Corpus

SeeInput = Callable[[str, Tensor], None]


@contextmanager
def watching(modules: Iterable[tuple[str, nn.Module]], see: SeeInput) -> Iterator[None]:
    """Call ``see(name, input)`` whenever one of the modules runs."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, args: see(name, args[0])

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def gram_owners(model: nn.Module, corpus: Corpus) -> dict[str, str]:
    """Find which layers read the same tensor (q, k and v do): layer -> the first of them to run."""
    owners: dict[str, str] = {}
    seen: dict[int, tuple[str, Tensor]] = {}

    def remember(name: str, x: Tensor) -> None:
        # `seen` keeps the tensors alive, so an id is not used twice during the forward.
        owners[name] = seen.setdefault(id(x), (name, x))[0]

    with watching(linear_layers(model), remember), torch.no_grad():
        model(input_ids=_batch(model, corpus.sequences[0][:8]), use_cache=False)
    return owners


def collect_grams(model: nn.Module, corpus: Corpus, owners: Mapping[str, str]) -> dict[str, Tensor]:
    """Run the calibration text; return the Gram matrix, (I, I) float64, of the input of every layer that
    `owners` names as its own owner."""
    grams: dict[str, Tensor] = {}

    def add(name: str, x: Tensor) -> None:
        if owners.get(name) == name:
            rows = x.reshape(-1, x.shape[-1]).float()
            # float32 products of one window, summed in float64: exact enough, at full speed.
            product = rows.T @ rows
            if name in grams:
                grams[name] += product
            else:
                grams[name] = product.double()

    node = QuietNode()
    with watching(linear_layers(model), add), torch.no_grad():
        for sequence in corpus.sequences:
            with node.working():
                model(input_ids=_batch(model, sequence), use_cache=False)
    return grams


def input_grams(model: nn.Module, names: Sequence[str], corpus: Corpus) -> dict[str, Tensor]:
    """Run the calibration text through a model as it is, compressed or not; return the Gram matrix, (I, I)
    float64, of the input of each of the modules named. Modules that read one tensor share one matrix."""
    found: dict[str, Tensor] = {}
    owners: dict[str, str] = {}
    seen: dict[int, tuple[str, Tensor]] = {}

    def add(name: str, x: Tensor) -> None:
        # `seen` keeps the tensors of a forward alive, so an id is not used twice during it.
        owner, _ = seen.setdefault(id(x), (name, x))
        owners[name] = owner
        if owner == name:
            rows = x.reshape(-1, x.shape[-1]).float()
            product = (rows.T @ rows).double()
            found[name] = found[name] + product if name in found else product

    node = QuietNode()
    with watching([(name, model.get_submodule(name)) for name in names], add), torch.no_grad():
        for sequence in corpus.sequences:
            with node.working():
                model(input_ids=_batch(model, sequence), use_cache=False)
            seen.clear()
    return {name: found[owner] for name, owner in owners.items()}


def collect_output_grams(model: nn.Module, corpus: Corpus) -> dict[str, tuple[Tensor, Tensor]]:
    """Run the calibration text; return what a layer with fewer outputs than inputs needs in place of its
    Gram matrix: the sum of y y' over its outputs without bias, (O, O) float64, and that matrix's mean
    diagonal, (1,)."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def add(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            bias = bias_of(module)
            y = (output if bias is None else output - bias).reshape(-1, output.shape[-1]).float()
            x = args[0]
            energy = (x.double().square().sum() / x.shape[-1]).reshape(1)
            if name not in found:
                found[name] = (y.T @ y).double(), energy
            else:
                found[name][0].add_(y.T @ y)
                found[name][1].add_(energy)

        return add

    wide = [(name, module) for name, module in linear_layers(model) if is_wide(weight_of(module))]
    handles = [module.register_forward_hook(hook(name)) for name, module in wide]
    node = QuietNode()
    try:
        with torch.no_grad():
            for sequence in corpus.sequences:
                with node.working():
                    model(input_ids=_batch(model, sequence), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found


def is_wide(weight_OI: Tensor) -> bool:
    """Whether a layer has fewer outputs than inputs: the Gram matrix of its outputs is the smaller one."""
    return weight_OI.shape[0] < weight_OI.shape[1]


def collect_magnitudes(model: nn.Module, corpus: Corpus, owners: Mapping[str, str]) -> dict[str, Tensor]:
    """Run the calibration text; return the mean of |x| of each distinct layer input, (I,) float64."""
    sums: dict[str, Tensor] = {}

    def add(name: str, x: Tensor) -> None:
        if owners[name] == name:
            total = x.reshape(-1, x.shape[-1]).abs().sum(0, dtype=torch.float64)
            sums[name] = sums[name] + total if name in sums else total

    node = QuietNode()
    with watching(linear_layers(model), add), torch.no_grad():
        for sequence in corpus.sequences:
            with node.working():
                model(input_ids=_batch(model, sequence), use_cache=False)
    return {name: total / corpus.tokens for name, total in sums.items()}


def cached_grams(
    directory: Path, model: nn.Module, corpus: Corpus, owners: Mapping[str, str]
) -> dict[str, Tensor]:
    """Return the Gram matrices from a cache directory, collecting them on first use. Kept as float32."""

    def fill(target: Path) -> None:
        grams = collect_grams(model, corpus, owners)
        for name, gram in grams.items():
            save_file({"gram": gram.float().cpu()}, target / f"{name}.safetensors")

    build_once(directory, fill)
    device = next(model.parameters()).device
    names = set(owners.values())
    return {name: load_file(directory / f"{name}.safetensors")["gram"].to(device) for name in names}


def _batch(model: nn.Module, sequence: Tensor) -> Tensor:
    return sequence[None].to(next(model.parameters()).device)
