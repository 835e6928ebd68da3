"""Healing of layers in few bits through their quantizer.

Each matrix in few bits gets a latent one in full precision. A forward multiplies by the latent one as the
quantizer rounds it, and its gradient passes to the latent one as if nothing had been rounded. What is trained
is hence the very function that is left in the end, when the latent matrix is packed once more.

Letters: O output features, I input features, B everything before the last dimension of x.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from hpo.compress.encoded_plan import Encoded
from hpo.compress.heal_knobs import HealKnobs
from hpo.compress.layer_plan import LayerPlan
from hpo.compress.layers import CorrectedLinear, PackedLowRankLinear
from hpo.compress.layers.packed import Packed
from hpo.compress.layers.ternary import Ternary
from hpo.compress.method import Healed, Healing, Patient
from hpo.compress.nf4 import Nf4Quantizer
from hpo.compress.pausing import run_out
from hpo.compress.plan import HealPlan
from hpo.compress.quantizer import Quantizer
from hpo.compress.recipe import Knobs
from hpo.compress.rounding import LARGEST, RoundToNearest
from hpo.compress.surgery import replace, weight_of
from hpo.compress.teaching import Treatment
from hpo.compress.ternary import TernaryQuantizer, untied
from hpo.compress.treatment import factor_parameters, treating
from hpo.compress.trits import Trits
from hpo.errors import NonFinite, Unsupported

REDONE = (RoundToNearest, Nf4Quantizer, TernaryQuantizer)
"""Quantizers that need no data and no search, so that they can round anew in every step."""


class StraightThroughKnobs(HealKnobs):
    """How to train."""

    loss: Literal["cross_entropy", "distil", "hidden", "local"] = Field(default="distil")


class StraightThrough:
    """Trains weights in few bits through their rounding.

    It starts from the dense layers' weights where those are what was rounded, else from the values in few
    bits. Factors that stand beside them are trained with them.

    Source: the straight-through estimator, Bengio et al. 2013, arXiv:1308.3432.
    """

    name: ClassVar[str] = "straight_through"
    stage: ClassVar[Literal["heal"]] = "heal"
    summary: ClassVar[str] = "train weights in few bits through their rounding; the order is quantize > heal"
    paper: ClassVar[str] = "Bengio et al. 2013, arXiv:1308.3432"
    knob_type: ClassVar[type[Knobs]] = StraightThroughKnobs
    follows: ClassVar[tuple[str, ...]] = ("quantize",)
    """Stages that may not come after it."""

    def plan(self, knobs: Knobs, layers: Sequence[LayerPlan]) -> HealPlan | None:
        assert isinstance(knobs, StraightThroughKnobs)
        if knobs.optimiser == "mezo":
            raise Unsupported(
                f"{self.name}: heal.optimiser=mezo: it passes gradients through rounding, and there are none",
                "use adamw",
            )
        found = [layer for layer in layers if isinstance(layer, Encoded)]
        if layers and not found:
            raise Unsupported(
                f"{self.name}: no layer is in few bits when healing begins",
                "name a method for quantize, and put it before heal (order: factorise > quantize > heal)",
            )
        for layer in found:
            check_redone(layer)
        return HealPlan(self.name, knobs) if knobs.steps else None

    def heal(self, patient: Patient, plan: HealPlan, seed: int) -> Healed:
        return run_out(self.healing(patient, plan, seed))

    def healing(self, patient: Patient, plan: HealPlan, seed: int) -> Healing:
        assert isinstance(plan.knobs, StraightThroughKnobs)
        return treating(patient, plan.knobs, seed, Latents)


def check_redone(layer: Encoded) -> None:
    """Refuse a layer that cannot be rounded anew in every step.

    Raises:
        Unsupported: its quantizer takes too long, or has zeros that would not stay zero.
    """
    quantizer, name = layer.quantizer, StraightThrough.name
    if layer.inner.kind == "sparse":
        raise Unsupported(
            f"{name}: the zeros of a layer with {layer.inner.costs.size} would not stay zero",
            "heal before quantize, or leave sparsify out",
        )
    if not isinstance(quantizer, REDONE):
        method = quantizer.key.rstrip("-") or type(quantizer).__name__
        raise Unsupported(
            f"{name}: {method} ({quantizer.format}) cannot be done again in every step",
            "use quantize: rtn, nf4 or ternary",
        )


class Latent(nn.Module):
    """A matrix in few bits as it is trained. `weight`, (O, I) float32, is what is rounded."""

    def __init__(self, packed: Packed, quantizer: Quantizer, dense_OI: Tensor | None) -> None:
        """`dense_OI` is what may have been rounded; it is taken if it is rounded to `packed` again."""
        super().__init__()
        self._quantizer = quantizer
        self._rounded: Tensor | None = None
        self.weight = nn.Parameter(_before_rounding(packed, quantizer, dense_OI), requires_grad=False)

    def forward(self) -> Tensor:
        """Return the matrix that it is rounded to, (O, I) float32; NaN where it cannot be."""
        if torch.is_grad_enabled():
            rounded: Tensor = _Straight.apply(self.weight, self)
            return rounded
        if self._rounded is None:
            self._rounded = self.round()
        return self._rounded

    def round(self) -> Tensor:
        """As `forward`, without gradients."""
        if not self.is_sound():
            return torch.full_like(self.weight, torch.nan)
        return self._quantizer.quantise(self.weight.detach()).dequantise()

    def is_sound(self) -> bool:
        """Whether it can be rounded: training that diverges ends with this."""
        return bool(self.weight.detach().abs().amax() <= LARGEST)

    def forget(self) -> None:
        """Let go of what it was rounded to; called when the weight has changed."""
        self._rounded = None

    def packed(self) -> Packed:
        """Return it in few bits.

        Raises:
            NonFinite: it cannot be.
        """
        if not self.is_sound():
            raise NonFinite("weights trained through their rounding diverged", "lower heal.learning_rate")
        return self._quantizer.quantise(self.weight.detach())


class _Straight(torch.autograd.Function):
    """Rounds, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, weight_OI: Tensor, latent: Latent) -> Tensor:
        return latent.round()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _before_rounding(packed: Packed, quantizer: Quantizer, dense_OI: Tensor | None) -> Tensor:
    """Return weights, (O, I) float32, that the quantizer rounds to `packed`."""
    values_OI = packed.dequantise()
    if dense_OI is not None and _is_rounded_to(dense_OI, values_OI, quantizer):
        return dense_OI.float().clone()
    if isinstance(packed, Ternary) and quantizer == TernaryQuantizer(Trits(packed.group_size), "absmean"):
        return untied(packed)
    return values_OI.clone()


def _is_rounded_to(dense_OI: Tensor, values_OI: Tensor, quantizer: Quantizer) -> bool:
    if dense_OI.shape != values_OI.shape:
        return False
    return torch.equal(quantizer.quantise(dense_OI).dequantise(), values_OI)


class Through(nn.Module):
    """In place of a layer while its matrices in few bits are trained."""

    layer: CorrectedLinear | PackedLowRankLinear

    def __init__(
        self, layer: CorrectedLinear | PackedLowRankLinear, quantizer: Quantizer, dense_OI: Tensor | None
    ) -> None:
        super().__init__()
        self.layer = layer
        self.before = {name: part for name, part in layer.named_children() if isinstance(part, Packed)}
        self.latents = nn.ModuleDict(
            {name: Latent(part, quantizer, dense_OI) for name, part in self.before.items()}
        )

    def forward(self, x_BI: Tensor) -> Tensor:
        layer, dtype = self.layer, x_BI.dtype
        parts = {name: latent().to(dtype) for name, latent in self.latents.items()}
        if isinstance(layer, PackedLowRankLinear):
            return functional.linear(functional.linear(x_BI, parts["right"]), parts["left"].T, layer.bias)
        y_BO = functional.linear(x_BI, parts["backbone"], layer.bias)
        if isinstance(layer.left, Tensor) and isinstance(layer.right, Tensor):
            y_BO = y_BO + functional.linear(
                functional.linear(x_BI, layer.right.to(dtype)), layer.left.to(dtype)
            )
        return y_BO

    def put_in(self) -> None:
        """Put what was learnt into the layer.

        Raises:
            NonFinite: training diverged.
        """
        found = {name: latent.packed() for name, latent in self._latents()}
        for name, part in found.items():
            setattr(self.layer, name, part)

    def put_back(self) -> None:
        """Put into the layer what it held before."""
        for name, part in self.before.items():
            setattr(self.layer, name, part)

    def forget(self) -> None:
        for _, latent in self._latents():
            latent.forget()

    def weights(self) -> list[nn.Parameter]:
        """Return what is trained."""
        return [latent.weight for _, latent in self._latents()]

    def _latents(self) -> list[tuple[str, Latent]]:
        return [(name, latent) for name, latent in self.latents.items() if isinstance(latent, Latent)]


class Latents(Treatment):
    """Trains latent matrices in place of those in few bits, and whatever factors the model has."""

    def __init__(self, patient: Patient, seed: int) -> None:
        self._model = patient.model
        self._factors = factor_parameters(self._model)
        self._through: dict[str, Through] = {}
        for shape, layer in patient.plan.named():
            if isinstance(layer, Encoded):
                module, dense = (
                    of.get_submodule(shape.name) for of in (self._model, patient.materials.dense)
                )
                if not isinstance(module, CorrectedLinear | PackedLowRankLinear):
                    raise Unsupported(
                        f"{StraightThrough.name}: {shape.name} is a {type(module).__name__}",
                        "use heal: lora with adapter: kept",
                    )
                self._through[shape.name] = Through(module, layer.quantizer, weight_of(dense).detach())
        for name, through in self._through.items():
            replace(self._model, name, through)

    def phases(self) -> Sequence[Sequence[nn.Parameter]]:
        latent = [weight for through in self._through.values() for weight in through.weights()]
        return [[*latent, *self._factors]]

    def after_step(self, step: int) -> None:
        for through in self._through.values():
            through.forget()

    def finish(self) -> None:
        for through in self._through.values():
            through.put_in()
        self._take_out()

    def undo(self) -> None:
        for through in self._through.values():
            through.put_back()
        self._take_out()

    def _take_out(self) -> None:
        for name, through in self._through.items():
            replace(self._model, name, through.layer)
