"""BoTorch's noisy expected hypervolume improvement (Daulton et al. 2021), as in its tutorials."""

import warnings

import numpy as np
import torch
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.models import ModelListGP, SingleTaskGP
from botorch.optim import optimize_acqf, optimize_acqf_discrete
from botorch.sampling.normal import SobolQMCNormalSampler
from botorch.utils.multi_objective.hypervolume import infer_reference_point
from botorch.utils.sampling import draw_sobol_samples, manual_seed
from gpytorch.mlls import SumMarginalLogLikelihood

from hpo.problem import Problem
from hpo.search.encoding import Encoding
from hpo.space import Candidate, Float
from hpo.trial import Trial, TrialState

SAMPLES = 128
"""Of the posterior."""
POOL = 1024
"""Candidates that are judged where the space has more than real numbers in it."""


class QLogNehvi:
    """One SingleTaskGP an objective, exact ones too; nothing that the problem knows beyond the space.

    A space of real numbers alone is searched by gradients (10 restarts of 512 raw samples), any other by
    the best of a Sobol pool. Limits count as the reference point; failures and refusals are left out.
    """

    by_gradient = True
    """Where the space allows it."""

    def __init__(self, problem: Problem, seed: int, initial: int) -> None:
        self._problem = problem
        self._encoding = Encoding(problem.space)
        self._told: list[Trial] = []
        self._asked = 0
        self._seed = seed
        self._initial = initial
        parameters = problem.space.parameters.values()
        numbers = all(isinstance(p, Float) and p.step is None and not p.when for p in parameters)
        self._smooth = self.by_gradient and numbers
        self._start = self._sobol(initial, seed)

    def tell(self, trial: Trial) -> None:
        self._told.append(trial)

    def ask(self) -> Candidate:
        self._asked += 1
        done = [trial for trial in self._told if trial.state is TrialState.COMPLETED]
        if self._asked <= self._initial:
            return self._start[self._asked - 1]
        seed = int(np.random.default_rng([self._seed, self._asked]).integers(2**31))
        if len(done) < 2:
            return self._sobol(1, seed)[0]
        with warnings.catch_warnings(), manual_seed(seed):
            warnings.simplefilter("ignore")  # of torch's and GPyTorch's own making
            acquisition = self._acquisition(done, seed)
            if self._smooth:
                return self._by_gradient(acquisition)
            return self._of_pool(acquisition, seed)

    def _sobol(self, count: int, seed: int) -> list[Candidate]:
        width = len(self._problem.space)
        bounds = torch.tensor([[0.0] * width, [1.0] * width], dtype=torch.float64)
        points = draw_sobol_samples(bounds, n=count, q=1, seed=seed).squeeze(1)
        return [self._problem.space.from_unit(point) for point in points.tolist()]

    def _acquisition(self, done: list[Trial], seed: int) -> qLogNoisyExpectedHypervolumeImprovement:
        rows = torch.from_numpy(self._encoding.encode([trial.candidate for trial in done]))
        gains = -torch.from_numpy(self._problem.losses(done))
        model = ModelListGP(*(SingleTaskGP(rows, column[:, None]) for column in gains.unbind(-1)))
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
        frame = self._problem.frame(self._told)
        reference = infer_reference_point(gains) if frame is None else -torch.tensor(frame.reference)
        return qLogNoisyExpectedHypervolumeImprovement(
            model,
            ref_point=reference.to(gains),
            X_baseline=rows,
            sampler=SobolQMCNormalSampler(torch.Size([SAMPLES]), seed=seed),
            prune_baseline=True,
        )

    def _by_gradient(self, acquisition: qLogNoisyExpectedHypervolumeImprovement) -> Candidate:
        width = len(self._encoding.columns)
        bounds = torch.tensor([[0.0] * width, [1.0] * width], dtype=torch.float64)
        best, _ = optimize_acqf(acquisition, bounds, q=1, num_restarts=10, raw_samples=512)
        known = dict(zip(self._encoding.columns, best[0].tolist(), strict=True))
        # A parameter of one value has no column.
        return self._problem.space.from_unit(
            [known.get(name, 0.5) for name in self._problem.space.parameters]
        )

    def _of_pool(self, acquisition: qLogNoisyExpectedHypervolumeImprovement, seed: int) -> Candidate:
        pool = self._sobol(POOL, seed)
        rows = torch.from_numpy(self._encoding.encode(pool))
        with torch.no_grad():
            best, _ = optimize_acqf_discrete(acquisition, q=1, choices=rows, max_batch_size=64)
        return pool[int((rows == best[0]).all(dim=1).nonzero()[0])]


class QLogNehviPool(QLogNehvi):
    """The best of a Sobol pool in any space: a poor optimiser, but one that seldom ends in a corner."""

    by_gradient = False
