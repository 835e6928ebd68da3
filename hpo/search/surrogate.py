"""What is expected of candidates: Gaussian processes where trials must tell, exact values elsewhere."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from gpytorch.mlls import ExactMarginalLogLikelihood
from linear_operator.utils.errors import NanError, NotPSDError
from numpy.typing import NDArray

from hpo.pareto import Frame
from hpo.problem import Problem
from hpo.search.history import blames_candidate
from hpo.search.inputs import Inputs
from hpo.search.outcomes import NoModel, Scale, dense_losses
from hpo.search.pool import Pool, previewed
from hpo.trial import Trial, TrialState

Array = NDArray[np.float64]

_STEPS = 60
"""Of L-BFGS in a fit. More of them cost time and changed no prediction at 30, 100 and 300 trials."""

_DOUBT = 0.1
"""Least standard deviation with which a chance of success is believed."""

_JITTER = 1e-8
"""Added to the variances of a joint sample; candidates that nearly coincide may want more of it."""


def fit(inputs_ND: Array, outcomes_N: Array) -> SingleTaskGP:
    """Return a Gaussian process of standardised outcomes (mean 0, spread 1).

    Matern 5/2 with a length scale a column, whose prior grows with the number of columns (Hvarfner et al.
    2024); the noise is learnt.

    Raises:
        NoModel: there are fewer than two distinct rows, or no fit was found.
    """
    if len({row.tobytes() for row in inputs_ND}) < 2:
        raise NoModel("fewer than 2 distinct trials have values")
    inputs, outcomes = torch.from_numpy(inputs_ND), torch.from_numpy(outcomes_N)[:, None]
    kernel = get_covar_module_with_dim_scaled_prior(ard_num_dims=inputs.shape[1], use_rbf_kernel=False)
    model = SingleTaskGP(inputs, outcomes, covar_module=kernel, outcome_transform=None)
    likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
    try:
        fit_gpytorch_mll(likelihood, optimizer_kwargs={"options": {"maxiter": _STEPS}})
    except (ModelFittingError, NotPSDError, NanError) as error:
        raise NoModel(f"the fit failed: {error}") from error
    return model


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


@dataclass(frozen=True)
class Surrogate:
    """What is expected of any candidate, from what the history says of others.

    An objective that the preview knows is never modelled. A trial that was stopped teaches what it has
    measured. A failure teaches where failures are, by a process of its own that is fitted to 1 for
    success and 0 for failure, and no loss is made up for it.
    """

    inputs: Inputs
    models: dict[int, tuple[SingleTaskGP, Scale]]
    """The processes by the place of their objective."""
    exact: tuple[int, ...]
    """The places of the objectives that the preview knows, in its order."""
    success: tuple[SingleTaskGP, float, float] | None
    """Its process, mean and spread; None while nothing, or everything, has failed."""

    def losses(self, pool: Pool, count: int, rng: np.random.Generator) -> Array:
        """Return joint samples of the losses of a pool, shape (count, N, M)."""
        rows = self.inputs.rows(pool)
        found = np.empty((count, len(pool), len(self.models) + len(self.exact)))
        found[:, :, self.exact] = pool.exact
        for place, (model, scale) in self.models.items():
            found[:, :, place] = scale.backward(joint_samples(model, rows, count, rng))
        return found

    def chances(self, pool: Pool) -> Array:
        """Return the probability that each candidate of a pool does not fail, shape (N,)."""
        if self.success is None:
            return np.ones(len(pool))
        model, centre, spread = self.success
        with torch.no_grad():
            found = model.posterior(torch.from_numpy(self.inputs.rows(pool)))
            doubt = (spread * found.variance.clamp_min(0.0).sqrt()).clamp_min(_DOUBT)
            chances: Array = torch.special.ndtr((centre + spread * found.mean - 0.5) / doubt)[:, 0].numpy()
        return chances

    @classmethod
    def of(cls, problem: Problem, history: Sequence[Trial], frame: Frame, pool: Pool) -> Self:
        """Fit what must be fitted. `pool` is a sample of the candidates that will be asked about.

        Raises:
            NoModel: an objective has been measured at fewer than two distinct candidates.
        """
        told, known = previewed(problem, _in_states(history, TrialState.COMPLETED, TrialState.STOPPED))
        inputs = Inputs.of(problem.space, known.joined(pool))
        rows, losses = inputs.rows(known), problem.losses(told)
        metrics = [objective.metric for objective in problem.objectives]
        dense = dense_losses(problem, history)
        models = {}
        for place, metric in enumerate(metrics):
            if metric not in problem.exact:
                has = np.isfinite(losses[:, place])
                if not has.any():
                    raise NoModel(f"no trial has a value for {metric}")
                scale = Scale.of(losses[has, place], frame.reference[place], dense[place])
                models[place] = fit(rows[has], scale.forward(losses[has, place])), scale
        exact = tuple(metrics.index(metric) for metric in problem.exact)
        return cls(inputs, models, exact, _success(problem, history, inputs, rows))


def _success(
    problem: Problem, history: Sequence[Trial], inputs: Inputs, succeeded_ND: Array
) -> tuple[SingleTaskGP, float, float] | None:
    failed = Pool.of(problem, [trial.candidate for trial in history if blames_candidate(trial)])
    if not len(failed) or not len(succeeded_ND):
        return None
    label = np.repeat([1.0, 0.0], [len(succeeded_ND), len(failed)])
    rows = np.vstack([succeeded_ND, inputs.rows(failed)])
    return fit(rows, (label - label.mean()) / label.std()), float(label.mean()), float(label.std())


def _in_states(history: Sequence[Trial], *states: TrialState) -> list[Trial]:
    return [trial for trial in history if trial.state in states]


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
