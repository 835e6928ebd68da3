"""How long does a sampler take to choose the next candidate?

CPU seconds of one thread, since machines are shared; the history is quasi-random. First asks of all samplers
for the first time; then the Bayesian one as a study goes on; last, why the acquisition is not BoTorch's own.

    python -m benchmarks.bench_ask
"""

import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import bench_preview
from benchmarks.shapes import llama_7b_profile
from hpo import registry
from hpo.pareto import Frame
from hpo.run.preview import problem_of
from hpo.search.acquisition import hypervolume_improvement
from hpo.search.generate import sobol
from hpo.search.outcomes import box
from hpo.search.pool import Gate, Pool, fresh
from hpo.search.process import reproducible
from hpo.search.sampler import Sampler
from hpo.search.sobol import SobolSampler
from hpo.search.surrogate import Surrogate
from hpo.space import Candidate
from hpo.trial import Trial
from tests.search.problems import Toy, dtlz2

Array = NDArray[np.float64]
SEEDS = 5
LENGTHS = (100, 300)


@dataclass(frozen=True)
class Row:
    """CPU seconds of one `ask`, over the seeds."""

    problem: str
    sampler: str
    trials: int
    low: float
    median: float
    high: float
    """Quartiles on both sides."""


def run() -> list[Row]:
    """Return a row a problem, history length and sampler."""
    rows = []
    for name, make in PROBLEMS.items():
        toy = make()
        for trials in LENGTHS:
            histories = [toy.search(SobolSampler(), trials, seed) for seed in range(SEEDS)]
            for sampler in sorted(set(registry.names("sampler")) - {"grid"}):  # which wants values to count
                asking: Sampler = registry.load("sampler", sampler)()
                asking.ask(toy.problem, histories[0], 1, seed=99)  # imports and caches
                seconds = [_seconds(asking, toy, h, seed) for seed, h in enumerate(histories)]
                rows.append(Row(name, sampler, trials, *np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()))
    return rows


def _seconds(sampler: Sampler, toy: Toy, history: Sequence[Trial], seed: int) -> float:
    started = time.process_time()
    asked = sampler.ask(toy.problem, history, 1, seed)
    seconds = time.process_time() - started
    assert len(asked) == 1
    return seconds


def plans_of_7b() -> Toy:
    """Return the search of a 7B-shaped model, 224 matrices, with figures made up from its plans."""
    study = bench_preview.study()
    objectives = [o for o in study.objectives if o.metric != "energy"]
    latency = type(objectives[0])(metric="prefill_latency")
    chosen = study.model_copy(update={"objectives": (*objectives, latency)})
    problem = problem_of(chosen, llama_7b_profile(), "counter")

    def truth(candidate: Candidate) -> dict[str, float]:
        memory, macs = problem.preview([candidate]).exact[0].tolist()
        noise = np.random.default_rng(int(candidate.key[:8], 16)).normal(1, 0.01)
        return {
            "perplexity": 5 * (14e9 / memory) ** 0.5,
            "prefill_latency": macs / 1e9 * noise,
            "weight_memory": memory,
            "macs": macs,
        }

    return Toy(problem, truth, (Candidate(),))


PROBLEMS: dict[str, Callable[[], Toy]] = {
    "DTLZ2, 2 measured, 2 exact": dtlz2,
    "DTLZ2, 4 measured": partial(dtlz2, exact=()),
    "7B plans, 2 measured, 2 exact": plans_of_7b,
}


@dataclass(frozen=True)
class Course:
    """What the Bayesian sampler takes as a study goes on: CPU seconds, and the most memory of its process."""

    trials: int
    first: float
    """Of a process that has just come to the study, with all fits to make."""
    median: float
    worst: float
    """Of the asks that follow, a trial told after each."""
    batch: float
    """Of one ask for 16 candidates."""
    memory_mb: float
    """Packages included, of which torch takes most."""


def courses(lengths: Sequence[int] = (100, 300, 1000, 10_000), asks: int = 15) -> Iterator[Course]:
    """Yield what asks take after so many quasi-random trials of four measured objectives, in processes of
    their own."""
    spawn = multiprocessing.get_context("spawn")
    for trials in lengths:
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            yield pool.submit(course, trials, asks).result()


def course(trials: int, asks: int) -> Course:
    """Return what asks take after so many trials, in this process."""
    torch.set_num_threads(1)
    toy = dtlz2(exact=())
    sampler: Sampler = registry.load("sampler", "bayesian")()
    young = [toy.trial(i, c) for i, c in enumerate(sobol(toy.problem.space, 20, seed=1))]
    sampler.ask(toy.problem, young, 1, seed=1)  # imports
    history = [toy.trial(i, c) for i, c in enumerate(sobol(toy.problem.space, trials, seed=0))]
    toy.problem.preview([trial.candidate for trial in history])
    seconds = []
    for _ in range(asks + 1):
        started = time.process_time()
        asked = sampler.ask(toy.problem, history, 1, seed=0)
        seconds.append(time.process_time() - started)
        history.append(toy.trial(len(history), asked[0]))
    started = time.process_time()
    sampler.ask(toy.problem, history, 16, seed=0)
    batch = time.process_time() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Course(trials, seconds[0], float(np.median(seconds[1:])), max(seconds[1:]), batch, memory)


@dataclass(frozen=True)
class Comparison:
    """One pool of candidates judged twice, by as many samples of the same processes."""

    trials: int
    candidates: int
    ours_seconds: float
    botorch_seconds: float
    rank_correlation: float
    """Of both scores over the better half; below it both are near zero."""


def against_botorch(trials: int = 100, samples: int = 16) -> Comparison:
    """Return what BoTorch's qLogNEHVI takes for the same choice: 2 processes, 2 exact objectives."""
    toy = dtlz2()
    history = toy.search(SobolSampler(), trials, seed=0)
    frame = box(toy.problem, history)
    known = Pool.of(toy.problem, [trial.candidate for trial in history])
    asked = fresh(Gate.of(toy.problem, history), 512, seed=1).first(512)
    with reproducible(0):
        surrogate = Surrogate.of(toy.problem, history, frame)
        started = time.process_time()
        losses = frame.normalised(surrogate.losses(known.joined(asked), samples, np.random.default_rng(0)))
        ours = hypervolume_improvement(losses[:, :trials], losses[:, trials:])
        between = time.process_time()
        theirs = _by_botorch(surrogate, frame, known, asked, samples)
        ended = time.process_time()
    better = ours >= np.median(ours)
    ours_rank, theirs_rank = (np.argsort(np.argsort(scores[better])) for scores in (ours, theirs))
    correlation = float(np.corrcoef(ours_rank, theirs_rank)[0, 1])
    return Comparison(trials, len(asked), between - started, ended - between, correlation)


def _by_botorch(surrogate: Surrogate, frame: Frame, known: Pool, asked: Pool, samples: int) -> Array:
    from botorch.acquisition.multi_objective import logei
    from botorch.acquisition.multi_objective.objective import GenericMCMultiOutputObjective
    from botorch.models.deterministic import GenericDeterministicModel
    from botorch.models.model import ModelList
    from botorch.sampling.get_sampler import get_sampler

    # It compiles C++ for the processor at hand on first use, given a compiler; without it is the fair case.
    logei._load_attempted = True
    inputs, count = surrogate.inputs, len(surrogate.exact)
    rows = [torch.from_numpy(inputs.rows(pool)) for pool in (known, asked)]

    def exact(X: torch.Tensor) -> torch.Tensor:
        seen = X[..., -count:] * torch.from_numpy(inputs.exact.width) + torch.from_numpy(inputs.exact.low)
        return torch.where(torch.from_numpy(inputs.exact.log), seen.exp(), seen)

    scales = [learnt.scale for learnt in surrogate.learnt.values()]

    def shares(outcomes: torch.Tensor, X: torch.Tensor | None = None) -> torch.Tensor:
        measured = [torch.from_numpy(s.backward(outcomes[..., i].numpy())) for i, s in enumerate(scales)]
        losses = torch.stack([*measured, *outcomes[..., len(scales) :].unbind(-1)], dim=-1)
        return 1 - torch.from_numpy(frame.normalised(losses.numpy()))

    model = ModelList(
        *[learnt.model for learnt in surrogate.learnt.values()], GenericDeterministicModel(exact, count)
    )
    with torch.no_grad():
        acquisition = logei.qLogNoisyExpectedHypervolumeImprovement(
            model,
            ref_point=torch.zeros(len(frame.reference), dtype=torch.float64),
            X_baseline=rows[0],
            sampler=get_sampler(model.posterior(rows[0]), torch.Size([samples]), seed=0),
            objective=GenericMCMultiOutputObjective(shares),
            prune_baseline=True,
            cache_root=False,
        )
        values: Array = torch.cat([acquisition(part[:, None]) for part in rows[1].split(32)]).numpy()
    return values


def main() -> None:
    torch.set_num_threads(1)
    print("| problem | sampler | trials | CPU seconds an ask, median (quartiles) |\n|---|---|---|---|")
    for r in run():
        print(f"| {r.problem} | {r.sampler} | {r.trials} | {r.median:.3f} ({r.low:.3f} to {r.high:.3f}) |")
    print("\n| trials, 4 measured | first ask, CPU s | median of the next | worst | 16 at once | memory MB |")
    print("|---|---|---|---|---|---|")
    for o in courses():
        seconds = f"{o.first:.2f} | {o.median:.2f} | {o.worst:.2f} | {o.batch:.2f}"
        print(f"| {o.trials:,} | {seconds} | {o.memory_mb:.0f} |")
    c = against_botorch()
    print("\n| candidates | ours, CPU s | BoTorch's qLogNEHVI, CPU s | rank correlation |\n|---|---|---|---|")
    print(f"| {c.candidates} | {c.ours_seconds:.2f} | {c.botorch_seconds:.2f} | {c.rank_correlation:.3f} |")


if __name__ == "__main__":
    main()
