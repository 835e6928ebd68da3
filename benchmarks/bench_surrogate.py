"""Which model of the losses predicts best where fronts are, on the recorded table?

Each is told a few random plans of the table and asked about all others that keep the limits. Its error is the
root mean square of what its logarithm is off by, over the spread of the truth (1: no better than their mean);
its rank correlation is Spearman's. Medians over seeds. The first is the product's; each of the others differs
from it in one thing.

    python -m benchmarks.bench_surrogate
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from gpytorch.kernels import Kernel, LinearKernel, ProductKernel, ScaleKernel
from gpytorch.means import LinearMean, Mean
from gpytorch.mlls import ExactMarginalLogLikelihood
from numpy.typing import NDArray

from benchmarks.search.recorded import MEASURED, recorded
from hpo.search.encoding import Encoding
from hpo.search.generate import everything
from hpo.search.inputs import Inputs
from hpo.search.lessons import Record
from hpo.search.outcomes import Scale, dense_losses
from hpo.search.process import Lesson, fit, means, reproducible

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

SIZES = (20, 40, 80)
SEEDS = 10
_FAMILIES = ("prune", "factorise", "sparsify", "quantize")
_NEVER = 1e9
"""An edge beyond which nothing lies."""


@dataclass(frozen=True, eq=False)
class Table:
    """Every plan that the table knows, N of them."""

    record: Record
    inputs: Array
    """(N, D) values, features of plans and exact losses: what the product's model sees."""
    values: Array
    """(N, C) the candidates' values alone."""
    families: Array
    """(N,) which methods a candidate combines, as a number."""
    inside: NDArray[np.bool_]
    """(N,) which keep the limits."""
    reference: Array
    dense: Array
    """(M,) losses of the dense model in measures of quality."""
    dense_losses: Array
    """(M,) the same of every objective."""


def table() -> Table:
    """Return the recorded table."""
    simulation = recorded()
    problem, anchors = simulation.problem, simulation.start()
    first = {problem.preview([c]).plans[0]: c for c in reversed(list(everything(problem.space)))}
    trials = [simulation.trial(i, c, "space") for i, (plan, c) in enumerate(first.items()) if plan]
    frame = problem.frame(anchors)
    if frame is None:
        raise ValueError("the table's anchors do not fix its box")
    record = Record.of(problem, trials, frame)
    combined = [tuple(str(c.values.get(name)) for name in _FAMILIES) for c in record.pool.candidates]
    return Table(
        record,
        Inputs.of(problem.space, record.pool).rows(record.pool),
        Encoding(problem.space).encode(record.pool.candidates),
        np.unique(combined, axis=0, return_inverse=True)[1].astype(float),
        np.asarray((frame.normalised(record.losses) < 1).all(axis=1)),
        np.array(frame.reference),
        dense_losses(problem, anchors),
        problem.losses(anchors)[0],
    )


@dataclass(frozen=True)
class Question:
    """What a model is told, of which objective, and what it is asked about."""

    table: Table
    place: int
    told: Rows
    asked: Rows

    @property
    def scale(self) -> Scale:
        t = self.table
        return Scale.of(t.record.losses[self.told, self.place], t.reference[self.place], t.dense[self.place])

    def lesson(self, inputs_ND: Array, scale: Scale) -> Lesson:
        return self.table.record.lesson(self.told, self.place, inputs_ND, scale)


Model = Callable[[Question], Array]
"""From a question to the losses expected of what is asked about."""


def product(q: Question) -> Array:
    return _seeing(q, q.table.inputs, q.scale)


def _seeing(q: Question, inputs_ND: Array, scale: Scale) -> Array:
    model = fit(q.lesson(inputs_ND, scale))
    return scale.backward(means(model, inputs_ND[q.asked]))


def values_alone(q: Question) -> Array:
    return _seeing(q, q.table.values, q.scale)


def plain_logarithm(q: Question) -> Array:
    logs = np.log(q.table.record.losses[q.told, q.place])
    return _seeing(q, q.table.inputs, Scale(True, _NEVER, 1.0, float(logs.mean()), float(logs.std())))


def against_the_dense_model(q: Question) -> Array:
    """The logarithm of what is lost against the dense model, for timings too."""
    losses, reference = q.table.record.losses[q.told, q.place], q.table.reference[q.place]
    return _seeing(q, q.table.inputs, Scale.of(losses, reference, q.table.dense_losses[q.place]))


def noise_not_told(q: Question) -> Array:
    lesson = q.lesson(q.table.inputs, q.scale)
    model = fit(replace(lesson, variances=np.zeros_like(lesson.variances)))
    return q.scale.backward(means(model, q.table.inputs[q.asked]))


def over_a_roofline(q: Question) -> Array:
    """The logarithm of what remains over a power law of the exact objectives, here bytes and operations."""
    exact = np.log(q.table.record.pool.exact)
    rows = np.column_stack([exact, np.ones(len(exact))])
    logs = np.log(q.table.record.losses[q.told, q.place])
    weights = np.linalg.lstsq(rows[q.told], logs, rcond=None)[0]
    left = logs - rows[q.told] @ weights
    model = fit(Lesson.of(q.table.inputs[q.told], (left - left.mean()) / left.std()))
    found = means(model, q.table.inputs[q.asked]) * left.std() + left.mean()
    expected: Array = np.exp(found + rows[q.asked] @ weights)
    return expected


def _botorch(kernel: Callable[[int], Kernel], mean: Callable[[int], Mean] | None = None) -> Model:
    """Return a model of BoTorch's with another kernel, or another mean."""

    def model(q: Question) -> Array:
        inputs = np.column_stack([q.table.inputs, q.table.families])
        lesson = q.lesson(inputs, q.scale)
        width = inputs.shape[1]
        process = SingleTaskGP(
            torch.from_numpy(lesson.inputs),
            torch.from_numpy(lesson.outcomes)[:, None],
            covar_module=kernel(width - 1),
            mean_module=None if mean is None else mean(width),
            outcome_transform=None,
        )
        likelihood = ExactMarginalLogLikelihood(process.likelihood, process)
        fit_gpytorch_mll(likelihood, optimizer_kwargs={"options": {"maxiter": 60}})
        return q.scale.backward(means(process, inputs[q.asked]))

    return model


def _matern(width: int, rbf: bool = False) -> Kernel:
    return get_covar_module_with_dim_scaled_prior(
        ard_num_dims=width, use_rbf_kernel=rbf, active_dims=tuple(range(width))
    )


def _rbf(width: int) -> Kernel:
    return _matern(width, rbf=True)


def _and_linear(width: int) -> Kernel:
    return _matern(width) + ScaleKernel(LinearKernel(ard_num_dims=width, active_dims=tuple(range(width))))


class _Same(Kernel):  # type: ignore[misc]  # GPyTorch's types are not followed
    """1 between candidates of the same families, 0 between others."""

    def forward(self, x1: torch.Tensor, x2: torch.Tensor, diag: bool = False, **_: object) -> torch.Tensor:
        if diag:
            return torch.ones(x1.shape[:-1], dtype=x1.dtype)
        return (x1[..., :, None, 0] == x2[..., None, :, 0]).to(x1.dtype)


def _branches(width: int) -> Kernel:
    """One process for all, and one more for each combination of families."""
    own = ProductKernel(_matern(width), _Same(active_dims=(width,)))
    return ScaleKernel(_matern(width)) + ScaleKernel(own)


MODELS: Mapping[str, Model] = {
    "Matern 5/2, a length scale a column": product,
    "sees a candidate's values, nothing of its plan": values_alone,
    "outcomes by a plain logarithm": plain_logarithm,
    "what is lost against the dense model, in timings too": against_the_dense_model,
    "noise of timings is not told": noise_not_told,
    "a residual over a power law of bytes and operations": over_a_roofline,
    "squared exponential": _botorch(_rbf),
    "a linear kernel beside it": _botorch(_and_linear),
    "a linear mean": _botorch(_matern, LinearMean),
    "one process more for each combination of families": _botorch(_branches),
}


@dataclass(frozen=True)
class Row:
    """Medians over seeds."""

    metric: str
    model: str
    errors: tuple[float, ...]
    """A size each."""
    ranks: tuple[float, ...]


def run(seeds: int = SEEDS) -> Iterator[Row]:
    """Yield a row a metric and model."""
    t = table()
    for place, metric in enumerate(MEASURED):
        for name, model in MODELS.items():
            found = [[_judged(t, place, model, size, seed) for seed in range(seeds)] for size in SIZES]
            medians = np.median(np.array(found), axis=1)
            yield Row(metric, name, tuple(medians[:, 0].tolist()), tuple(medians[:, 1].tolist()))


def _judged(t: Table, place: int, model: Model, size: int, seed: int) -> tuple[float, float]:
    told = np.random.default_rng(seed).choice(len(t.record), size, replace=False)
    q = Question(t, place, told, np.setdiff1d(np.flatnonzero(t.inside), told))
    with reproducible(seed):
        found = np.log(model(q))
    truth = np.log(t.record.losses[q.asked, place])
    error = float(np.sqrt(((found - truth) ** 2).mean()) / truth.std())
    one, other = (np.unique(values, return_inverse=True)[1].astype(float) for values in (found, truth))
    return error, float(np.corrcoef(one, other)[0, 1])


def main() -> None:
    torch.set_num_threads(1)
    columns = " | ".join(f"error, {n} trials" for n in SIZES), " | ".join(f"rank, {n}" for n in SIZES)
    print(f"| objective | model | {columns[0]} | {columns[1]} |")
    print("|---|---|" + "---|" * (2 * len(SIZES)))
    for row in run():
        errors, ranks = (" | ".join(f"{v:.3f}" for v in values) for values in (row.errors, row.ranks))
        print(f"| {row.metric} | {row.model} | {errors} | {ranks} |", flush=True)


if __name__ == "__main__":
    main()
