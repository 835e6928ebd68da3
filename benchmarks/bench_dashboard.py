"""How soon does the dashboard show a study of 10,000 trials, and what does watching cost?

In Chromium, beside a bare Dash page with one Plotly figure of 200 points, served the same way and opened in
turn with ours: seconds from the address to the first front and figures in numbers on the screen, cold (a
fresh browser profile) and warm (its second visit); the median of several. Then a limit's slider, from the
event to the picture after it; the server's time for news of one trial; its memory; and how many trials a
second a coordinator gets through while pages are open, beside none.

    python -m benchmarks.bench_dashboard [--trials 10000]
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from dashboards.feed import feed_of
from dashboards.front import standing_of
from dashboards.source import StudySource
from hpo.metric import METRICS, Source
from hpo.space import Candidate
from hpo.store.store import Store
from hpo.store.values import EventKind, Front, Lease
from hpo.study import Study
from hpo.trial import Measurement, StageTime, Trial

TRIALS = 10_000
VISITS = 5
SLIDES = 15
OBJECTIVES = ("perplexity", "prefill_latency", "weight_memory", "energy")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
]

WATCH = """
(() => {
  const look = () => {
    const there = window.wanted && window.wanted.every((one) => document.querySelector(one));
    if (there) requestAnimationFrame(() => { window.painted = performance.now(); });
    else requestAnimationFrame(look);
  };
  window.wanted = %s;
  look();
})();
"""
"""Tells when all of some elements are there, and a frame has been drawn since."""

BARE = """
import numpy as np, plotly.graph_objects as go, waitress
from dash import Dash, dcc, html
rng = np.random.default_rng(0)
app = Dash("bare", serve_locally=True)
figure = go.Figure(go.Scatter(x=rng.random(200), y=rng.random(200), mode="markers"))
app.layout = html.Div([html.H1("bare"), dcc.Graph(figure=figure)])
server = waitress.create_server(app.server, host="127.0.0.1", port=0, threads=4)
print(f"http://127.0.0.1:{server.effective_port}/", flush=True)
server.run()
"""
OURS = """
import sys
from dashboards.serve import make_server
server, address = make_server(sys.argv[1], "127.0.0.1", 0)
print(address, flush=True)
server.run()
"""
POINT = ".js-plotly-plot .scatterlayer .point"
WANTED = {"bare": [POINT, "h1"], "ours": [POINT, "#study-head .tile dd", "h1"]}


def study_of(name: str, trials: int) -> Study:
    return Study.from_mapping(
        {
            "version": 1,
            "name": name,
            "question": "How soon is it there?",
            "model": "reference",
            "objectives": [
                {"metric": "perplexity", "limit": {"ratio_to_dense": 3.0}},
                *({"metric": name, "allow_modelled": name == "energy"} for name in OBJECTIVES[1:]),
            ],
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "budget": {"trials": trials},
        }
    )


def trial_of(number: int, rng: np.random.Generator) -> Trial:
    """Return a trial whose objectives trade against each other, with noise; trial 0 is the dense model."""
    keep = 1.0 if number == 0 else float(rng.uniform(0.1, 1.0))
    off = 1 + abs(rng.normal(0, 0.2, 4)) * (number > 0)
    values = (
        np.array([4.7 * np.exp(1.4 * (1 - keep) ** 2), 2 + 3 * keep, 1.7e6 * keep, 0.4 + 1.1 * keep]) * off
    )
    measured = tuple(
        Measurement(
            name,
            float(value),
            METRICS[name].unit,
            Source.EXACT
            if name == "weight_memory"
            else Source.MODELLED
            if name == "energy"
            else Source.MEASURED,
            0.01 * float(value) if name == "prefill_latency" else 0.0,
            5 if name == "prefill_latency" else 1,
            "" if name == "weight_memory" else "cpu:bench",
        )
        for name, value in zip(OBJECTIVES, values, strict=True)
    )
    candidate = Candidate() if number == 0 else Candidate.of({"x": keep})
    origin = "anchor:dense" if number == 0 else "bayesian"
    begun = Trial(number, candidate, origin, f"{number:05d}", created_at=1.0 + number).started(
        "w", 1.0 + number
    )
    return begun.advanced(StageTime("measure", 5.0), measured).completed(6.0 + number)


def write(store: Store, lease: Lease, trial: Trial) -> None:
    """Write a trial as a coordinator does: asked, started, completed."""
    asked = Trial(trial.number, trial.candidate, trial.origin, trial.plan_hash, created_at=trial.created_at)
    store.add_trial(lease, asked, (), trial.created_at)
    store.save_trial(lease, asked.started("w", trial.created_at), EventKind.STARTED, trial.created_at)
    store.save_trial(lease, trial, EventKind.COMPLETED, trial.finished_at or 0.0)


def fill(url: str, count: int) -> None:
    rng = np.random.default_rng(0)
    with Store.open(url) as store:
        study = study_of("big", count)
        store.create_study(study, {"device": "cpu:bench"}, 1.0)
        lease = store.acquire("big", "bench", 1e6, 1.0)
        trials = [trial_of(number, rng) for number in range(count)]
        for trial in trials:
            write(store, lease, trial)
        members = [
            number
            for number, standing in standing_of(study.objectives, trials).items()
            if standing == "front"
        ]
        store.save_front(lease, Front(0, tuple(members), 0.5, (), (), count, 1.0 + count))
        store.release(lease, 1.0)


@contextmanager
def server(script: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """Run a server in a process of its own; yield its address and process id."""
    process = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.terminate()
        process.wait(10)


def painted(page: Page, address: str) -> float:
    """Return the seconds from the address to the picture."""
    page.goto(address, wait_until="commit")
    while (found := page.evaluate("window.painted")) is None:
        page.wait_for_timeout(20)
    return float(found) / 1000


def visit(browser: Browser, address: str, kind: str) -> tuple[float, float]:
    """Return the seconds of a fresh profile's first and second visit."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.add_init_script(WATCH % WANTED[kind])
    entered(context, address)
    times = []
    for _ in range(2):
        page = context.new_page()
        times.append(painted(page, target(address, kind)))
        page.wait_for_timeout(1500)  # what follows the first picture is not to meet the next visit
        page.close()
    context.close()
    return times[0], times[1]


def entered(context: BrowserContext, address: str) -> None:
    """Have the token's cookie, without a page that would fill the cache."""
    if "token" in address:
        context.request.get(address, max_redirects=0)


def target(address: str, kind: str) -> str:
    return address if kind == "bare" else address.partition("/?")[0] + "/study/big"


SLIDE = """
async (step) => {
  const slider = document.querySelector("#limit-perplexity"), root = document.querySelector("#front");
  const before = root.dataset.drawn, began = performance.now();
  slider.value = step;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  while (root.dataset.drawn === before) await new Promise((go) => requestAnimationFrame(go));
  await new Promise((go) => requestAnimationFrame(() => setTimeout(go)));
  return performance.now() - began;
}
"""


def slides(browser: Browser, address: str) -> list[float]:
    """Return the milliseconds from a slider's event to the end of the frame that shows it."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    entered(context, address)
    page = context.new_page()
    page.goto(target(address, "ours"))
    page.locator("#front[data-settled]").wait_for()
    page.wait_for_timeout(3000)
    found = []
    for step in np.linspace(150, 20, SLIDES).astype(int).tolist():
        found.append(float(page.evaluate(SLIDE, step)))
        page.wait_for_timeout(400)
    context.close()
    return found


def news_ms(url: str, count: int) -> tuple[float, float]:
    """Return the milliseconds the server takes for news of one trial and for the head of the page."""
    from dashboards.front_page import head

    source, rng = StudySource(url), np.random.default_rng(1)
    _, times, heads = source.changes("big", 0), [], []
    with Store.open(url) as store:
        lease = store.acquire("big", "news", 1e6, time.time())
        for number in range(count, count + 5):
            since = source.snapshot("big").newest
            write(store, lease, trial_of(number, rng))
            began = time.perf_counter()
            feed_of(*source.changes("big", since))
            times.append(1000 * (time.perf_counter() - began))
            began = time.perf_counter()
            head(source.snapshot("big"))
            heads.append(1000 * (time.perf_counter() - began))
        store.release(lease, time.time())
    source.close()
    return median(times), median(heads)


def memory_mib(process: int) -> float:
    """Return the resident memory of a process at its highest."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def written_per_s(url: str, name: str, seconds: float, trial_s: float) -> float:
    """Return how many trials a second a coordinator of eight workers gets through, each of `trial_s`."""
    rng, count = np.random.default_rng(2), 0
    with Store.open(url) as store:
        store.create_study(study_of(name, 10**6), {}, time.time())
        lease = store.acquire(name, "bench", 1e6, time.time())
        began = time.perf_counter()
        while (elapsed := time.perf_counter() - began) < seconds:
            write(store, lease, trial_of(count, rng))
            count += 1
            due = count * trial_s / 8
            time.sleep(max(due - elapsed, 0.0))
        store.release(lease, time.time())
    return count / seconds


def watched(browser: Browser, address: str, pages: int, act: Callable[[], float]) -> float:
    """Return what `act` comes to while so many pages of the large study are open and live."""
    context = browser.new_context()
    entered(context, address)
    for _ in range(pages):
        page = context.new_page()
        page.goto(target(address, "ours"))
        page.locator("#front[data-settled]").wait_for()
        page.wait_for_timeout(3000)  # it is the watching that is measured, not the opening
    found = act()
    context.close()
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.bench_dashboard")
    parser.add_argument("--trials", type=int, default=TRIALS)
    count = parser.parse_args(arguments or []).trials
    chromium = shutil.which("chromium")
    if chromium is None:
        print("Chromium is not installed (Debian: apt-get install chromium); nothing was measured.")
        return
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        url = f"sqlite:///{directory}/hpo.db"
        fill(url, count)
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        with server(BARE) as (bare, _), server(OURS, url) as (ours, process):
            report_visits(browser, bare, ours)
            found = slides(browser, ours)
            about = f"worst {max(found):.0f}; asked 250"
            row("a limit's slider, ms from event to picture", f"{median(found):.0f}", about)
            row("server's memory at its highest, MiB", f"{memory_mib(process):.0f}", "asked 500")
            news, head = news_ms(url, count)
            about = f"{news:.0f} trials, {head:.0f} head; asked 300"
            row("server's time for news of one trial, ms", f"{news + head:.0f}", about)
            report_front(url)
            report_writer(browser, ours, url)
        browser.close()


def row(what: str, value: str, about: str) -> None:
    print(f"| {what} | {value} | {about} |", flush=True)


def report_visits(browser: Browser, bare: str, ours: str) -> None:
    visits: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
    for _ in range(VISITS):
        for kind, address in (("bare", bare), ("ours", ours)):
            visits[kind].append(visit(browser, address, kind))
    print("| figure | measured | about |")
    print("|---|---|---|")
    for place, word in enumerate(("cold", "warm")):
        mine, other = (median(times[place] for times in visits[kind]) for kind in ("ours", "bare"))
        about = f"{mine / other:.2f} x the bare page's {other:.2f}; asked 1.5 x"
        row(f"front and numbers painted, {word}, s", f"{mine:.2f}", about)


def report_front(url: str) -> None:
    source = StudySource(url)
    now = source.snapshot("big")
    times = []
    for _ in range(5):
        began = time.perf_counter()
        standing_of(now.record.study.objectives, now.trials)
        times.append(time.perf_counter() - began)
    row(f"front of {len(now.trials):,} trials x 4, s", f"{median(times):.3f}", "asked 0.2")
    source.close()


def report_writer(browser: Browser, ours: str, url: str) -> None:
    """Tell how a coordinator fares with pages of the store open, and without."""
    for trial_s, word in ((1.0, "eight workers, 1 s a trial"), (0.0, "as fast as it can")):
        alone = [written_per_s(url, f"alone-{trial_s:g}-{n}", 8.0, trial_s) for n in range(2)]
        seen = [
            watched(browser, ours, 10, partial(written_per_s, url, f"seen-{trial_s:g}-{n}", 8.0, trial_s))
            for n in range(2)
        ]
        share = f"{median(seen) / median(alone):.3f} of {median(alone):.1f} with none; asked 0.95"
        row(f"trials a second with 10 pages open, {word}", f"{median(seen):.1f}", share)


if __name__ == "__main__":
    main(sys.argv[1:])
