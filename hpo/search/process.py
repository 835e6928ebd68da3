"""Gaussian processes: fitted, conditioned and drawn from.

Letters: N outcomes, D columns of input.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Self

import numpy as np
import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.utils.gpytorch_modules import (
    get_covar_module_with_dim_scaled_prior,
    get_gaussian_likelihood_with_lognormal_prior,
)
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from linear_operator.utils.errors import NanError, NotPSDError
from numpy.typing import NDArray

from hpo.search.outcomes import NoModel

Array = NDArray[np.float64]

_STEPS = 60
"""Of L-BFGS in a fit. More of them cost time and changed no prediction at 30, 100 and 300 trials."""

_PATIENCE_S = 20.0
"""For one fit; what it has found by then is taken."""

_JITTER = 1e-8
"""Added to the variances of a joint sample; candidates that nearly coincide may want more of it."""

_REMEMBERED = 64
_LEAST = 1e-6
"""The least variance that GPyTorch takes for known noise."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a process is told.

    Raises:
        ValueError: the shapes do not agree, or a variance is negative.
    """

    inputs: Array
    """(N, D), each column about in [0, 1]."""
    outcomes: Array
    """(N,) standardised: mean 0, spread 1."""
    variances: Array
    """(N,) noise known of each outcome, beside the noise that all share and that is learnt."""

    def __post_init__(self) -> None:
        count = len(self.inputs)
        if self.outcomes.shape != (count,) or self.variances.shape != (count,):
            shapes = f"outcomes of shape {self.outcomes.shape}, variances of shape {self.variances.shape}"
            raise ValueError(f"{count} rows of input, {shapes}; there must be one of each a row")
        if (self.variances < 0).any():
            raise ValueError("a variance is negative")

    @classmethod
    def of(cls, inputs_ND: Array, outcomes_N: Array) -> Self:
        """Return a lesson of which no noise is known."""
        return cls(inputs_ND, outcomes_N, np.zeros(len(outcomes_N)))

    def take(self, rows: NDArray[np.intp]) -> Self:
        return type(self)(self.inputs[rows], self.outcomes[rows], self.variances[rows])

    @cached_property
    def distinct(self) -> int:
        """How many rows of input differ."""
        return len({row.tobytes() for row in self.inputs})


def fit(lesson: Lesson, learnt_from: Lesson | None = None) -> SingleTaskGP:
    """Return a Gaussian process that has been told a lesson.

    Matern 5/2 with a length scale a column, whose prior grows with the number of columns (Hvarfner et al.
    2024); nothing that was tried errs less for quality and latency alike (benchmarks/bench_surrogate). Length
    scales and noise are fitted to `learnt_from`, by default the lesson itself; the same is fitted once.

    Raises:
        NoModel: there are fewer than two distinct rows, or no fit was found.
    """
    source = learnt_from or lesson
    if min(lesson.distinct, source.distinct) < 2:
        raise NoModel("fewer than 2 distinct trials have values")
    parts = (source.inputs, source.outcomes, source.variances)
    parameters = _fitted(source.inputs.shape, *(np.ascontiguousarray(part).tobytes() for part in parts))
    model = _untrained(lesson)
    model.load_state_dict(dict(parameters))
    model.eval()
    return model


def _untrained(lesson: Lesson) -> SingleTaskGP:
    inputs, outcomes = torch.from_numpy(lesson.inputs), torch.from_numpy(lesson.outcomes)[:, None]
    return SingleTaskGP(
        inputs,
        outcomes,
        likelihood=_likelihood(lesson.variances),
        covar_module=get_covar_module_with_dim_scaled_prior(
            ard_num_dims=inputs.shape[1], use_rbf_kernel=False
        ),
        outcome_transform=None,
    )


def _likelihood(variances_N: Array) -> FixedNoiseGaussianLikelihood:
    """Return noise that is learnt, with BoTorch's prior, and over it what is known of each outcome."""
    found = FixedNoiseGaussianLikelihood(torch.from_numpy(variances_N + _LEAST))
    found.second_noise_covar = get_gaussian_likelihood_with_lognormal_prior().noise_covar
    return found


@lru_cache(maxsize=_REMEMBERED)
def _fitted(
    shape: tuple[int, int], inputs: bytes, outcomes: bytes, variances: bytes
) -> Mapping[str, torch.Tensor]:
    """Return the parameters fitted to a lesson, given as the bytes of its arrays."""
    rows, values, noise = (np.frombuffer(part).copy() for part in (inputs, outcomes, variances))
    model = _untrained(Lesson(rows.reshape(shape), values, noise))
    likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
    try:
        fit_gpytorch_mll(
            likelihood, optimizer_kwargs={"options": {"maxiter": _STEPS}, "timeout_sec": _PATIENCE_S}
        )
    except (ModelFittingError, NotPSDError, NanError) as error:
        raise NoModel(f"the fit failed: {error}") from error
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def rehearse() -> None:
    """Fit to next to nothing, for what is loaded and set up on the way."""
    inputs = np.linspace(0, 1, 4)[:, None]
    with reproducible(0):
        joint_samples(fit(Lesson.of(inputs, inputs[:, 0] - 0.5)), inputs, 1, np.random.default_rng(0))


def joint_samples(model: SingleTaskGP, inputs_ND: Array, count: int, rng: np.random.Generator) -> Array:
    """Return draws of a process at N points together, without measurement noise, shape (count, N)."""
    with torch.no_grad():
        found = model.posterior(torch.from_numpy(inputs_ND)).distribution
        covariance = found.covariance_matrix
        eye, jitter = torch.eye(len(covariance), dtype=covariance.dtype), _JITTER
        root, broken = torch.linalg.cholesky_ex(covariance + jitter * eye)
        while broken and jitter < 1:
            jitter *= 10
            root, broken = torch.linalg.cholesky_ex(covariance + jitter * eye)
        draws = torch.from_numpy(rng.standard_normal((count, len(inputs_ND))))
        samples: Array = (found.mean + draws @ root.T).numpy()
    return samples


def means(model: SingleTaskGP, inputs_ND: Array) -> Array:
    """Return what a process expects at N points, shape (N,)."""
    with torch.no_grad():
        found: Array = model.posterior(torch.from_numpy(inputs_ND)).mean[:, 0].numpy()
    return found


def left_out(model: SingleTaskGP, lesson: Lesson) -> tuple[Array, Array]:
    """Return what a process says of each outcome of its lesson from the others: means and deviations, (N,).

    In closed form (Rasmussen and Williams 2006, eq. 5.12), with the parameters fitted to all. The deviations
    are those of a measurement: noise included.

    Raises:
        NoModel: the covariance cannot be inverted.
    """
    with torch.no_grad():
        model.train()
        prior = model(model.train_inputs[0])
        noisy = model.likelihood(prior).covariance_matrix
        model.eval()
        inverse, broken = torch.linalg.inv_ex(noisy)
        if broken:
            raise NoModel("the covariance of the trials cannot be inverted")
        outcomes = torch.from_numpy(lesson.outcomes)
        share = inverse.diagonal()
        means = outcomes - (inverse @ (outcomes - prior.mean)) / share
        found: tuple[Array, Array] = means.numpy(), share.rsqrt().numpy()
    return found


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Run torch on one thread with random numbers of its own, and leave both as they were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed % 2**63)
            yield
    finally:
        torch.set_num_threads(threads)
