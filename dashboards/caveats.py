"""What must be said beside the figures of a study, so that nobody trusts them for more than they are."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from dashboards.front import anchor_name
from hpo.format import count_text, words
from hpo.metric import Source
from hpo.problem import dense_trial, on_front
from hpo.trial import Objective, Trial, TrialState


def caveats(
    objectives: Sequence[Objective], trials: Sequence[Trial], front: Sequence[Trial] | None = None
) -> tuple[str, ...]:
    """Return one sentence for each thing that limits what the figures say; none is good news.

    `front` is the front of the trials, where it is known already.
    """
    completed = [t for t in trials if t.state is TrialState.COMPLETED]
    if not completed:
        return ()
    if front is None:
        front = [t for t, kept in zip(trials, on_front(objectives, trials), strict=True) if kept]
    modelled, devices = _told(completed)
    return (
        *_without_dense(trials),
        *_modelled(objectives, modelled),
        *_devices(objectives, devices),
        *_noisy(objectives, front),
        *_unbeaten(front),
    )


def _told(trials: Sequence[Trial]) -> tuple[set[str], dict[str, set[str]]]:
    """Return the metrics that are modelled somewhere, and metric -> devices it was measured on."""
    kinds = {(m.metric, m.source, m.device) for trial in trials for m in trial.measurements}
    devices: dict[str, set[str]] = {}
    for name, _, device in kinds:
        if device:
            devices.setdefault(name, set()).add(device)
    return {name for name, source, _ in kinds if source is Source.MODELLED}, devices


def _without_dense(trials: Sequence[Trial]) -> Iterator[str]:
    if dense_trial(trials) is None:
        yield (
            "The dense model has not been measured: limits relative to it hold nothing back yet, and "
            "nothing can be compared with it."
        )


def _modelled(objectives: Sequence[Objective], modelled: Collection[str]) -> Iterator[str]:
    for o in objectives:
        if o.metric in modelled:
            yield (
                f"{words(o.metric).capitalize()} is modelled, not measured: it follows from published "
                "constants. It ranks candidates; it does not predict what a meter would read."
            )


def _devices(objectives: Sequence[Objective], devices: Mapping[str, Collection[str]]) -> Iterator[str]:
    for o in objectives:
        if len(found := sorted(devices.get(o.metric, ()))) > 1:
            yield (
                f"{words(o.metric).capitalize()} was measured on {len(found)} devices "
                f"({', '.join(found)}); their figures do not belong in one front."
            )


def _noisy(objectives: Sequence[Objective], front: Sequence[Trial]) -> Iterator[str]:
    for o in objectives:
        noisy = [t.number for t in front if (m := t.measurement(o.metric)) and "noisy" in m.note]
        if noisy:
            yield (
                f"{words(o.metric).capitalize()} of {count_text(len(noisy), 'front member')} "
                f"({', '.join(map(str, noisy))}) was taken on a machine that was not quiet; "
                "measure again before choosing by it."
            )


def _unbeaten(front: Sequence[Trial]) -> Iterator[str]:
    for trial in front:
        if anchor_name(trial) and not trial.is_dense:
            yield (
                f"The anchor {anchor_name(trial)} (trial {trial.number}) is on the front: no searched "
                "trial is at least as good in every objective."
            )
