"""What SliceGPT needs of a model once: the whole model with its residual stream turned into principal bases.

Letters: D width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hpo.compress.architecture import Architecture
from hpo.compress.grams import watching
from hpo.compress.preparation import Prepared
from hpo.compress.slicegpt_layout import BASIS, NORMS, REFUSED, Role, preparation_name
from hpo.compress.slicegpt_math import normalised, principal_basis, turned_reader, turned_writer
from hpo.compress.slicegpt_plan import Rotations
from hpo.compress.slicegpt_stream import Branch, Stream, stream_of
from hpo.compress.statistics import Statistics
from hpo.compress.surgery import bias_of, weight_of
from hpo.compress.svd_math import finite
from hpo.errors import Unsupported
from hpo.measure.quiet import QuietNode
from hpo.models.text import Corpus


@dataclass(frozen=True)
class SlicedBases:
    """Every matrix of the stream in its basis, principal directions first, so that a trial slices.

    A layer, the embedding and the output layer have ``weight``, and ``bias`` where they write the stream; a
    block with bases of its own has ``to_mlp`` and ``to_next`` (D, D). The arrays are what plans go by, see
    `hpo.compress.slicegpt_layout`. Of a model that cannot be sliced the reason is kept, and no more.
    """

    rotations: Rotations

    @property
    def name(self) -> str:
        return preparation_name(self.rotations)

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        try:
            stream = stream_of(model, architecture)
        except Unsupported as error:
            yield Prepared("stream", arrays={f"{REFUSED}@{error.message}": torch.zeros(1)})
            return
        count, is_shared = len(stream.norms), self.rotations == "shared"
        numbers = [0] * count if is_shared else list(range(count))
        grams = _grams(model, statistics.corpus, stream.norms, numbers)
        found = []
        for number in sorted(set(numbers)):
            basis, energies = principal_basis(grams.pop(number), f"what {stream.norms[number]} reads")
            found.append(basis)
            yield Prepared("stream", arrays={f"{BASIS}@{number}": energies})
        yield Prepared("stream", arrays={NORMS: torch.tensor([float(count)])})
        turned = _Turned(model, stream, tuple(found), tuple(numbers))
        yield from turned.ends()
        for number, branch in enumerate(stream.branches):
            yield from turned.branch(number, branch)
        if not is_shared:
            yield from turned.between()


@dataclass(frozen=True)
class _Turned:
    """The pieces of a stream, each in the basis of its place."""

    model: nn.Module
    stream: Stream
    bases: tuple[Tensor, ...]
    """Each (D, D)."""
    numbers: tuple[int, ...]
    """Which of the bases each norm reads, in order."""

    def _basis(self, number: int) -> Tensor:
        return self.bases[self.numbers[number]]

    def ends(self) -> Iterator[Prepared]:
        """Yield the embedding and the output layer."""
        table_VD = self.model.get_parameter(f"{self.stream.embedding}.weight").detach()
        table = finite(table_VD.double(), f"{self.stream.embedding}.weight")
        yield Prepared(self.stream.embedding, {"weight": table @ self._basis(0)})
        last = len(self.numbers) - 1
        yield Prepared(
            self.stream.head, {"weight": self._read(self.stream.head, self.stream.last_norm, last)}
        )

    def branch(self, number: int, branch: Branch) -> Iterator[Prepared]:
        """Yield the layers of one attention or MLP, the so manieth to read the stream."""
        for name in branch.readers:
            role = Role("reads", self.numbers[number], self._has_bias(name))
            weight = self._read(name, branch.norm, number)
            yield Prepared(name, {"weight": weight}, {name: torch.from_numpy(role.to_array())})
        name, basis = branch.writer, self._basis(number + 1)
        layer = self.model.get_submodule(name)
        tensors = {"weight": turned_writer(weight_of(layer).detach(), basis, f"{name}.weight")}
        if (bias := bias_of(layer)) is not None:
            tensors["bias"] = turned_writer(bias, basis, f"{name}.bias")
        role = Role("writes", self.numbers[number + 1], bias is not None)
        yield Prepared(name, tensors, {name: torch.from_numpy(role.to_array())})

    def between(self) -> Iterator[Prepared]:
        """Yield what takes the stream from one basis to the next."""
        for number, block in enumerate(self.stream.blocks):
            before, within, after = (self._basis(2 * number + step) for step in range(3))
            yield Prepared(block.path, {"to_mlp": before.T @ within, "to_next": within.T @ after})

    def _read(self, name: str, norm: str, number: int) -> Tensor:
        weight, scale = weight_of(self.model.get_submodule(name)), self.model.get_parameter(f"{norm}.weight")
        return turned_reader(weight.detach(), scale.detach(), self._basis(number), f"{name}.weight")

    def _has_bias(self, name: str) -> bool:
        return bias_of(self.model.get_submodule(name)) is not None


def _grams(
    model: nn.Module, corpus: Corpus, norms: Sequence[str], numbers: Sequence[int]
) -> dict[int, Tensor]:
    """Run the calibration text; return the Gram matrices, (D, D) float64, of what norms put out before their
    scale, those of norms with the same number in one sum."""
    grams: dict[int, Tensor] = {}
    number_of = dict(zip(norms, numbers, strict=True))

    def add(name: str, x: Tensor) -> None:
        norm: Any = model.get_submodule(name)
        rows = normalised(x, norm.variance_epsilon)
        # float32 products of one window, summed in float64: exact enough, at full speed.
        product, number = rows.T @ rows, number_of[name]
        if number in grams:
            grams[number] += product
        else:
            grams[number] = product.double()

    node, device = QuietNode(), next(model.parameters()).device
    with watching([(name, model.get_submodule(name)) for name in norms], add), torch.no_grad():
        for sequence in corpus.sequences:
            with node.working():
                model(input_ids=sequence[None].to(device), use_cache=False)
    return grams
