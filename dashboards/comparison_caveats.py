"""What makes studies hard to compare, in sentences."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from dashboards.comparison import Run
from hpo.format import number_text, words
from hpo.study import Study

_ALIKE = 1.1
"""Up to this ratio of the most to the least spent, budgets count as matched."""


def comparison_caveats(studies: Sequence[Study], runs: Sequence[Run], *, cut: bool) -> tuple[str, ...]:
    """Return one sentence for each thing that limits what the comparison says."""
    return (*_setting(studies), *_devices(runs), *_sources(runs), *([] if cut else _budgets(runs)))


def _setting(studies: Sequence[Study]) -> Iterator[str]:
    models = _by([(study.name, study.model.source) for study in studies])
    if len(models) > 1:
        yield f"The studies compress different models ({_listed(models)}): better here is not better there."
    if len({(s.data.evaluation.model_dump_json(), s.data.context) for s in studies}) > 1:
        yield "The studies measure quality on different texts or contexts; those figures are not alike."


def _devices(runs: Sequence[Run]) -> Iterator[str]:
    for metric in runs[0].devices if runs else ():
        found = _by([(run.name, device) for run in runs for device in sorted(run.devices[metric])])
        if len(found) > 1:
            yield (
                f"{words(metric).capitalize()} was measured on {len(found)} devices ({_listed(found)}); "
                "figures of two devices do not belong in one front."
            )


def _sources(runs: Sequence[Run]) -> Iterator[str]:
    for metric in runs[0].sources if runs else ():
        found = _by([(run.name, str(source)) for run in runs for source in sorted(run.sources[metric])])
        if len(found) > 1:
            yield f"{words(metric).capitalize()} is not had in one way ({_listed(found)})."


def _budgets(runs: Sequence[Run]) -> Iterator[str]:
    hours = {run.name: run.hours for run in runs}
    if len(hours) > 1 and max(hours.values()) > _ALIKE * min(hours.values()):
        most, least = max(hours, key=lambda n: hours[n]), min(hours, key=lambda n: hours[n])
        yield (
            f"They have not spent the same: {most} {number_text(hours[most], 3)} worker hours, "
            f"{least} {number_text(hours[least], 3)}. Cut them to the same budget for a fair picture."
        )


def _by(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Return value -> the studies that have it."""
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for name, value in pairs:
        found[value][name] = None
    return {value: list(names) for value, names in found.items()}


def _listed(values: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{value} in {', '.join(names)}" for value, names in sorted(values.items()))
