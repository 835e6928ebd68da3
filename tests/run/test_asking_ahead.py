import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch

from hpo import registry
from hpo.problem import Problem
from hpo.run.asking import Asker
from hpo.run.bench import Setup
from hpo.run.job import Job
from hpo.run.pace import Pace
from hpo.run.runner import Report, Runner
from hpo.run.stock import Stock
from hpo.space import Candidate
from hpo.store.store import Store
from hpo.store.values import StudyState
from hpo.study import Search
from hpo.trial import Trial, TrialState
from tests.run import benches
from tests.run.conftest import coordinate, coordinator, in_process
from tests.run.test_pace import timed

SOON_S = 30.0
"""How long something may take that takes no time unless it never comes."""


class GatedSampler:
    """Proposes x = 0.001, 0.002, ...; waits for its gate; remembers what it was asked, and by whom."""

    summary = "for tests"

    def __init__(self, plans: int = 900) -> None:
        self.plans = plans
        self.gate, self.asked = threading.Event(), threading.Event()
        self.gate.set()
        self.questions: list[tuple[tuple[Trial, ...], int, int]] = []
        self.fails = False

    def ask(self, problem: Problem, history: Sequence[Trial], count: int, seed: int) -> list[Candidate]:
        self.questions.append((tuple(history), count, threading.get_ident()))
        self.asked.set()
        assert self.gate.wait(SOON_S)
        if self.fails:
            raise ZeroDivisionError("told to fail")
        known = {trial.plan_hash for trial in history}
        points = [Candidate.of({"x": k / 1000}) for k in range(1, self.plans + 1)]
        return [c for c in points if f"{benches.x_of(c):.6f}" not in known][:count]


class ManualRunner(Runner):
    """Workers whose trials are over whenever the script says so; it is called at each `wait`."""

    def __init__(
        self, workers: int, script: Callable[["ManualRunner"], None], concurrent: bool = True
    ) -> None:
        self.workers, self.script, self.concurrent = workers, script, concurrent
        self.jobs: list[Job] = []
        self.stages: list[tuple[int, str]] = []
        self.most = 0
        self._due: dict[int, str] = {}
        self._reports: list[Report] = []
        self._bench = benches.ToyBench({})

    def start(self) -> Setup:
        return self._bench.setup()

    def free(self) -> int:
        return self.workers - len(self.jobs)

    def submit(self, job: Job, stage: str) -> str:
        if job not in self.jobs:
            self.jobs.append(job)
        self.most = max(self.most, len(self.jobs))
        self.stages.append((job.number, stage))
        self._due[job.number] = stage
        return "manual"

    def release(self, job: Job) -> None:
        self.jobs.remove(job)

    def finish(self, job: Job) -> None:
        """Let the stage that a job is in be over; nothing if none is."""
        if stage := self._due.pop(job.number, ""):
            self._reports.append(Report(job, self._bench.run(job, stage)))

    def finish_all(self) -> None:
        for job in list(self.jobs):
            self.finish(job)

    def wait(self, timeout_s: float) -> list[Report]:
        self.script(self)
        reports, self._reports = self._reports, []
        if not reports:
            time.sleep(min(timeout_s, 0.001))
        return reports

    def close(self) -> None:
        pass


@pytest.fixture
def sampler(monkeypatch: pytest.MonkeyPatch) -> Iterator[GatedSampler]:
    """Takes the place of Sobol's."""
    made, load = GatedSampler(), registry.load

    def loaded(kind: registry.Kind, name: str) -> object:
        return (lambda initial: made) if kind == "sampler" else load(kind, name)

    monkeypatch.setattr(registry, "load", loaded)
    yield made
    made.gate.set()


def under_way(elapsed_s: Sequence[float], lasted_s: Sequence[float] = (100.0,) * 6) -> list[Trial]:
    """Return finished trials that lasted so long, with all anchors of the toy, then running ones."""
    now, trials = time.time(), []
    origins = ["anchor:dense", "anchor:smallest", "anchor:largest"]
    for number, seconds in enumerate([*lasted_s, *elapsed_s]):
        x = 0.95 + number / 10_000
        origin = origins[number] if number < len(origins) else "sobol"
        waiting = Trial(number, Candidate.of({"x": x}), origin, f"{x:.6f}")
        if number < len(lasted_s):
            trials.append(waiting.started("a", now - seconds).completed(now))
        else:
            trials.append(waiting.started("a", now - seconds))
    return trials


def stocked(sampler: GatedSampler, pace: Pace, apart: bool = True, initial: int = 1) -> Stock:
    study = benches.study()
    return Stock(Asker(benches.problem(study), Search(sampler="sobol", initial=initial)), apart, pace)


def answered(stock: Stock) -> None:
    stock.wait(SOON_S)
    assert not stock.busy


# The stock


def test_a_slot_freed_while_an_ask_runs_is_filled_without_another(sampler: GatedSampler) -> None:
    stock, trials = stocked(sampler, timed((1, 5.0), (8, 5.0))), under_way([99.0, 98.0])
    stock.order(trials, free=0, queued=0, left=None)
    answered(stock)
    sampler.gate.clear()
    sampler.asked.clear()
    first = stock.take(trials, 1)
    stock.order(trials, free=0, queued=0, left=None)
    assert sampler.asked.wait(SOON_S)
    assert stock.busy
    (second,) = stock.take(trials, 1)
    assert [count for _, count, _ in sampler.questions] == [2, 1]
    assert {first[0][2], second[2]} == {"0.001000", "0.002000"}


def test_what_is_in_stock_is_under_way_to_the_next_ask(sampler: GatedSampler) -> None:
    stock, trials = stocked(sampler, timed((1, 5.0), (8, 5.0))), under_way([99.0])
    stock.order(trials, free=0, queued=0, left=None)
    answered(stock)
    assert stock.take(trials, 0) == []
    stock.order(trials, free=1, queued=0, left=None)
    answered(stock)
    history, count, _ = sampler.questions[-1]
    assert (len(stock), count) == (1, 1)
    assert [(t.number, t.state, t.plan_hash) for t in history[7:]] == [(7, TrialState.WAITING, "0.001000")]
    plans = [plan for _, _, plan in stock.take(trials, 9)]
    assert plans == ["0.001000", "0.002000"]


def test_a_proposal_whose_plan_is_taken_meanwhile_is_dropped(sampler: GatedSampler) -> None:
    stock, trials = stocked(sampler, Pace()), under_way([1.0])
    stock.order(trials, free=2, queued=0, left=None)
    answered(stock)
    trials.append(Trial(7, Candidate.of({"x": 0.001}), "person", "0.001000"))
    assert [plan for _, _, plan in stock.take(trials, 2)] == ["0.002000"]


def test_no_more_is_asked_for_than_the_budget_has_left(sampler: GatedSampler) -> None:
    stock, trials = stocked(sampler, timed((1, 5.0), (8, 5.0))), under_way([99.0] * 6)
    stock.order(trials, free=0, queued=0, left=3)
    answered(stock)
    assert stock.take(trials, 0) == []
    stock.order(trials, free=2, queued=0, left=3)
    assert [count for _, count, _ in sampler.questions] == [3]
    assert not stock.busy


class PreparedSampler(GatedSampler):
    def __init__(self) -> None:
        super().__init__()
        self.prepared: list[int] = []

    def prepare(self) -> None:
        self.prepared.append(threading.get_ident())


@pytest.mark.parametrize("apart", [True, False])
def test_a_sampler_prepares_itself_once_while_the_first_trials_run(
    monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    made = PreparedSampler()
    monkeypatch.setattr(registry, "load", lambda kind, name: lambda initial: made)
    stock, trials = stocked(made, Pace(), apart), under_way([1.0])
    stock.order(trials, free=2, queued=0, left=None)
    answered(stock)
    assert made.prepared == [], "workers wait: the question goes first"
    assert len(stock.take(trials, 2)) == 2
    for _ in range(2):
        stock.order(trials, free=0, queued=0, left=None)
        answered(stock)
        assert stock.take(trials, 2) == []
    assert len(made.prepared) == apart
    assert threading.get_ident() not in made.prepared
    assert not stock.exhausted


def test_trials_that_wait_to_be_tried_again_need_no_proposals(sampler: GatedSampler) -> None:
    stock, trials = stocked(sampler, timed((1, 5.0), (8, 5.0))), under_way([99.0] * 6)
    stock.order(trials, free=0, queued=4, left=None)
    answered(stock)
    assert [count for _, count, _ in sampler.questions] == [2]


def test_slow_samplers_are_asked_in_batches(sampler: GatedSampler) -> None:
    stock, trials = stocked(sampler, timed((1, 30.0), (8, 30.0))), under_way([50.0] * 12)
    stock.order(trials, free=0, queued=0, left=None)
    answered(stock)
    assert [count for _, count, _ in sampler.questions] == [12]  # all will be over within a minute


def test_a_batch_is_no_larger_than_its_beginning_is_worth(sampler: GatedSampler) -> None:
    stock, trials = stocked(sampler, timed((1, 2.0), (3, 4.0))), under_way([99.0])
    stock.order(trials, free=40, queued=0, left=None)
    answered(stock)
    assert [count for _, count, _ in sampler.questions] == [9]  # 1 s of 10 s


def test_quick_samplers_are_asked_when_a_slot_is_free_with_all_that_is_known(sampler: GatedSampler) -> None:
    stock, trials = stocked(sampler, timed((1, 0.01), (2, 0.01))), under_way([99.0, 98.0])
    stock.order(trials, free=0, queued=0, left=None)
    assert sampler.questions == []
    stock.order(trials, free=1, queued=0, left=None)
    answered(stock)
    ((history, count, _),) = sampler.questions
    assert (history, count) == (tuple(trials), 1)


def test_a_sampler_short_of_plans_is_asked_again_after_news_and_given_up_alone(sampler: GatedSampler) -> None:
    sampler.plans = 0
    stock, trials = stocked(sampler, Pace()), under_way([1.0])
    for _ in range(3):
        stock.order(trials, free=1, queued=0, left=None)
        answered(stock)
        assert stock.take(trials, 1) == []
        assert not stock.exhausted
    assert len(sampler.questions) == 1
    trials[-1] = trials[-1].completed(time.time())
    stock.order(trials, free=2, queued=0, left=None)
    answered(stock)
    assert stock.take(trials, 2) == []
    assert stock.exhausted
    assert len(sampler.questions) == 2


def test_the_quasi_random_start_says_nothing_of_the_time_that_asks_take(sampler: GatedSampler) -> None:
    pace = timed((1, 5.0), (8, 5.0))
    stock, trials = stocked(sampler, pace, initial=50), under_way([1.0])
    for _ in range(9):
        stock.order(trials, free=len(stock) + 1, queued=0, left=None)
        answered(stock)
        stock.take(trials, 0)
    assert len(stock) == 9
    assert pace.seconds(1) == pytest.approx(5.0)


# The coordinator


def manual(workers: int, script: Callable[[ManualRunner], None]) -> ManualRunner:
    return ManualRunner(workers, script)


def test_the_budget_is_met_exactly_and_no_plan_is_tried_twice(store: Store, sampler: GatedSampler) -> None:
    study = benches.study(41)
    runner: Runner = manual(6, ManualRunner.finish_all)
    assert coordinate(store, study, runner).state is StudyState.FINISHED
    trials = store.trials("toy")
    assert [t.state for t in trials] == [TrialState.COMPLETED] * 41
    assert len({t.plan_hash for t in trials}) == 41
    assert isinstance(runner, ManualRunner)
    assert runner.most == 6
    assert all(ident != threading.get_ident() for _, _, ident in sampler.questions)


def test_a_study_of_a_small_space_ends_when_all_of_it_is_tried(store: Store, sampler: GatedSampler) -> None:
    sampler.plans = 7
    outcome = coordinate(store, benches.study(50), manual(4, ManualRunner.finish_all))
    assert (outcome.state, "no more plans" in outcome.message) == (StudyState.FINISHED, True)
    plans = [t.plan_hash for t in store.trials("toy")]
    assert len(plans) == len(set(plans)) == 3 + 7


def test_reports_are_heard_and_a_drain_is_obeyed_while_an_ask_runs(
    store: Store, sampler: GatedSampler
) -> None:
    def script(runner: ManualRunner) -> None:
        if sampler.asked.is_set():
            current.interrupt()
            runner.script = ManualRunner.finish_all

    sampler.gate.clear()
    current = coordinator(store, benches.study(50), manual(5, script))
    outcome = current.run()
    assert not sampler.gate.is_set()
    assert (outcome.state, outcome.message) == (StudyState.STOPPED, "drained")
    assert [t.state for t in store.trials("toy")] == [TrialState.COMPLETED] * 3  # the anchors


def test_a_cancel_does_not_wait_for_an_ask_and_nothing_asked_ahead_is_recorded(
    store: Store, sampler: GatedSampler
) -> None:
    def script(runner: ManualRunner) -> None:
        if sampler.asked.is_set():
            current.cancel()

    sampler.gate.clear()
    current = coordinator(store, benches.study(50), manual(5, script))
    assert current.run().message == "cancelled"
    assert not sampler.gate.is_set()
    assert [(t.state, t.attempt) for t in store.trials("toy")] == [(TrialState.WAITING, 2)] * 3
    sampler.gate.set()
    outcome = coordinate(store, benches.study(50), manual(5, ManualRunner.finish_all))
    assert outcome.state is StudyState.FINISHED
    assert len(store.trials("toy")) == 50


def test_the_error_of_a_sampler_ends_the_study(store: Store, sampler: GatedSampler) -> None:
    sampler.fails = True
    with pytest.raises(ZeroDivisionError, match="told to fail"):
        coordinate(store, benches.study(50), manual(5, ManualRunner.finish_all))
    sampler.fails = False
    now = time.time()
    holder = store.holder("toy")
    assert holder is not None
    store.release(store.acquire("toy", "next", 30, now, replacing=holder.owner), now)
    outcome = coordinate(store, benches.study(50), manual(5, ManualRunner.finish_all))
    assert outcome.state is StudyState.FINISHED


def test_a_trial_is_judged_when_no_ask_runs(store: Store, sampler: GatedSampler) -> None:
    measured: list[int] = []

    def script(runner: ManualRunner) -> None:
        if not sampler.asked.is_set():
            return
        runner.finish_all()
        if len(measured) < 5:
            measured.append(sum(stage == "measure" for _, stage in runner.stages))
        else:
            sampler.gate.set()

    sampler.gate.clear()
    outcome = coordinate(store, benches.study(12), manual(5, script), tiers=("glimpse",))
    assert measured == [0] * 5
    assert outcome.state is StudyState.FINISHED
    assert len(store.trials("toy")) == 12


def test_models_fitted_in_the_background_leave_torch_as_it_was(store: Store) -> None:
    state, threads, filters = torch.random.get_rng_state(), torch.get_num_threads(), list(warnings.filters)
    study = benches.study(8, search={"sampler": "bayesian", "initial": 2})
    assert coordinate(store, study, manual(2, ManualRunner.finish_all)).state is StudyState.FINISHED
    assert [t.origin for t in store.trials("toy")[3:]] == ["bayesian"] * 5
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert warnings.filters == filters


def test_where_this_process_does_the_work_each_proposal_knows_all_trials(
    store: Store, sampler: GatedSampler
) -> None:
    study = benches.study(12)
    coordinate(store, study, in_process(study))
    assert [ident for _, _, ident in sampler.questions] == [threading.get_ident()] * 9
    for number, (history, count, _) in enumerate(sampler.questions, 3):
        assert count == 1
        assert [t.state for t in history] == [TrialState.COMPLETED] * number
