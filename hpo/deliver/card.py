"""The model card: what was done to which model, what was measured where, and how to load the result."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpo.compress.applying import heal_seed
from hpo.deliver.form import Form
from hpo.deliver.rebuild import Rebuilt
from hpo.deliver.verify import Verification
from hpo.format import note_text, number_text, percent_text, spread_text, time_text
from hpo.measure.device import environment
from hpo.metric import Source
from hpo.models.source import REFERENCE
from hpo.store.values import StudyRecord
from hpo.study import TextSource
from hpo.trial import Measurement, Trial

_FORMS = {
    Form.FACTORED: "**factored**: the factors themselves, with `modeling_compressed.py` that runs them",
    Form.DENSE: "**dense**: plain weights of the base architecture, as large as the original",
}


@dataclass(frozen=True)
class Card:
    """Everything a model card is made from."""

    rebuilt: Rebuilt
    record: StudyRecord
    dense_trial: Trial | None
    """The uncompressed model's trial, to compare with; None if the study has none completed."""
    form: Form
    directory: str
    """Name to show in examples."""
    verification: Verification | None = None

    def text(self) -> str:
        """Return the card as Markdown with the YAML header that hubs read."""
        sections = (
            self._title(),
            self._loading(),
            self._measured(),
            self._recipe(),
            self._layers(),
            self._provenance(),
            self._verified(),
            self._caveats(),
            self._licence(),
        )
        return self._header() + "\n" + "\n\n".join("\n".join(lines) for lines in sections) + "\n"

    def _header(self) -> str:
        source = self.rebuilt.study.model.source
        keys: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
        if self.rebuilt.dense.commit is not None:  # only a hub id means something to a hub
            keys["base_model"] = source
        if licence := base_licence(self.rebuilt.dense.directory, self.rebuilt.dense.module.config):
            keys["license"] = licence
        keys["tags"] = ["compression", "low-rank", "compression-hpo"]
        return f"---\n{yaml.safe_dump(keys, sort_keys=False)}---\n"

    def _title(self) -> Iterator[str]:
        study, trial, plan = self.rebuilt.study, self.rebuilt.trial, self.rebuilt.plan
        yield f"# {_base(self.rebuilt)}, compressed: {study.name}, trial {trial.number}"
        yield ""
        if plan.is_dense:
            yield "The uncompressed model of the study: no layer was changed."
        else:
            linear = plan.architecture.linear_parameters
            yield (
                f"{percent_text(plan.linear_parameters / linear)} of the weights of the linear layers are "
                f"kept ({plan.linear_parameters:,} of {linear:,}); "
                f"the model has {plan.parameters:,} parameters in all."
            )
        yield ""
        yield f"Form of this directory: {_FORMS[self.form]}."
        if study.question:
            yield ""
            yield f"The study asked: {study.question.strip()}"

    def _loading(self) -> Iterator[str]:
        factored = self.form is Form.FACTORED
        trust = ", trust_remote_code=True" if factored else ""
        yield "## Load it"
        yield ""
        yield "```python"
        yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
        yield ""
        yield f'model = AutoModelForCausalLM.from_pretrained("{self.directory}"{trust})'
        yield f'tokenizer = AutoTokenizer.from_pretrained("{self.directory}"{trust})'
        yield "```"
        yield ""
        if factored:
            yield (
                "`trust_remote_code=True` runs `modeling_compressed.py` of this directory; it needs torch "
                "and transformers and nothing else. Read it first: it is short."
            )
        else:
            yield "No code comes with it. The factors are multiplied out, so no memory or time is saved."

    def _measured(self) -> Iterator[str]:
        trial, dense = self.rebuilt.trial, self.dense_trial
        latest = {m.metric: m for m in trial.measurements}
        yield "## Measured"
        yield ""
        yield from _table(
            ("metric", "this model", "dense", "ratio", "repeats", "source", "device"),
            (self._row(m, None if dense is None else dense.measurement(m.metric)) for m in latest.values()),
        )
        yield ""
        yield (
            "± is one standard deviation over repeats, for quality the standard error over sequences. "
            "`exact` follows from the plan, `measured` was measured on the device named, "
            "`modelled` is an estimate."
        )
        notes: dict[str, list[str]] = {}
        for m in latest.values():
            notes.setdefault(m.note, []).append(m.metric)
        yield ""
        yield from (f"- {', '.join(metrics)}: {note}" for note, metrics in notes.items() if note)

    def _row(self, mine: Measurement, dense: Measurement | None) -> tuple[str, ...]:
        comparable = dense is not None and dense.value != 0 and dense.device == mine.device
        return (
            mine.metric,
            spread_text(mine.value, mine.spread, mine.unit),
            "–" if dense is None else spread_text(dense.value, dense.spread, dense.unit),
            number_text(mine.value / dense.value) if dense is not None and comparable else "–",
            str(mine.repeats),
            str(mine.source),
            mine.device or "–",
        )

    def _recipe(self) -> Iterator[str]:
        trial, plan = self.rebuilt.trial, self.rebuilt.plan
        yield "## Recipe"
        yield ""
        yield from (f"- `{name}`: {value}" for name, value in trial.candidate.items)
        if not trial.candidate.items:
            yield "- none: the dense model"
        yield f"- plan: `{plan.hash}`, asked by {trial.origin}"
        yield f"- seed of the search: {self.rebuilt.study.search.seed}"
        if plan.heal is not None:
            yield f"- seed of the healing: {heal_seed(plan)} (follows from the plan)"
        yield from (
            f"- {name.replace('_', ' ')}: {note_text(value, 6)}" for name, value in trial.notes.items()
        )

    def _layers(self) -> Iterator[str]:
        yield "## Layers"
        yield ""
        yield from _table(
            ("layer", "kind", "size", "parameters", "dense", "kept"),
            (
                (
                    f"`{r.layer}`",
                    r.kind,
                    r.size,
                    f"{r.parameters:,}",
                    f"{r.dense_parameters:,}",
                    percent_text(r.parameters / r.dense_parameters),
                )
                for r in self.rebuilt.plan.records()
            ),
        )
        if self.form is Form.DENSE and not self.rebuilt.plan.is_dense:
            yield ""
            yield "In this directory each of them is multiplied out to its dense size."

    def _provenance(self) -> Iterator[str]:
        rebuilt, record = self.rebuilt, self.record
        study, dense = rebuilt.study, rebuilt.dense
        yield "## Where it comes from"
        yield ""
        yield f"- base model: {_base(rebuilt)}, digest `{dense.digest}`"
        yield f"- calibration text: {_text(study.data.calibration)}, digest `{rebuilt.calibration_digest}`"
        yield f"- evaluation text: {_text(study.data.evaluation)}, digest `{rebuilt.evaluation.digest}`"
        yield f"- study: {study.name}, hash `{study.hash}`, launched {time_text(record.created_at)}"
        yield f"- measured {time_text(rebuilt.trial.finished_at)}"
        yield f"- versions then: {_versions(record.environment)}"
        yield f"- versions at export: {_versions(environment())}"
        yield (
            f"- made again for this export from its recipe: nll {rebuilt.nll:.8g} nats per token against "
            f"{rebuilt.stored_nll:.8g} in the trial, {_difference(rebuilt)}"
        )

    def _verified(self) -> Iterator[str]:
        yield "## Verified"
        yield ""
        if self.verification is None:
            yield "Not verified. Export with `--verify` to reload it in a fresh process and measure again."
            return
        passed = self.verification.passed
        yield (
            "Reloaded in a fresh process with transformers alone and compared with the model before it was "
            f"written: **{'passed' if passed else 'FAILED'}**."
        )
        yield ""
        yield from _table(
            ("check", "", "found", "expected"),
            (
                (c.name, "ok" if c.passed else "FAILED", c.found or "–", c.expected)
                for c in self.verification.checks
            ),
        )

    def _caveats(self) -> Iterator[str]:
        trial, plan = self.rebuilt.trial, self.rebuilt.plan
        yield "## Before you rely on it"
        yield ""
        yield "- Times, memory and energy hold for the device named beside them and for no other."
        yield (
            "- Quality is that on the evaluation text above, which the search saw: of many candidates this "
            "one was chosen by these very figures, so expect slightly worse on other text."
        )
        if any(m.source is Source.MODELLED for m in trial.measurements):
            yield "- Values marked `modelled` (energy) come from a model of the hardware, not from a meter."
        if any(getattr(layer, "contraction", "") == "cached" for layer in plan.layers):
            yield "- `cached` tensor trains rebuild weights on first use: they take more memory than disk."
        if self.form is Form.DENSE and not plan.is_dense:
            yield (
                "- Parameters, memory, time and energy above are those of the factored form. This directory "
                "has the same quality and the cost of the dense model."
            )
        yield "- Tasks, generation, safety and bias were not measured."

    def _licence(self) -> Iterator[str]:
        rebuilt = self.rebuilt
        found = base_licence(rebuilt.dense.directory, rebuilt.dense.module.config)
        yield "## Licence"
        yield ""
        if found:
            yield f"Weights derived from the base model, which is under `{found}`."
        elif rebuilt.study.model.source == REFERENCE:
            yield "Weights trained on the documentation that comes with Python (PSF licence)."
        else:
            yield "For the weights, see the base model."
        if self.form is Form.FACTORED:
            yield "`modeling_compressed.py`: Apache-2.0."


def base_licence(directory: Path, config: Any) -> str | None:
    """Return the licence that the base model's card or configuration names, None where neither does."""
    card = directory / "README.md"
    named = None
    if card.is_file():
        parts = card.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
        if len(parts) == 3 and not parts[0].strip():
            try:
                header = yaml.safe_load(parts[1])
            except yaml.YAMLError:  # somebody else's card; without a readable header it names nothing
                header = None
            named = header.get("license") if isinstance(header, dict) else None
    named = named or getattr(config, "license", None)
    return str(named) if isinstance(named, str) else None


def _base(rebuilt: Rebuilt) -> str:
    """Return the base model in words: its source, and the commit where it has one."""
    source, commit = rebuilt.study.model, rebuilt.dense.commit
    if source.source == REFERENCE:
        return "the reference model"
    if commit is None:  # a local path means nothing elsewhere, and may say more than it should
        return Path(source.source).expanduser().name
    revision = f" ({source.revision})" if source.revision and source.revision != commit else ""
    return f"{source.source} at {commit}{revision}"


def _text(source: TextSource) -> str:
    """Return a text's source in words; of a local file its name only."""
    given = source.model_dump(exclude_none=True, exclude_defaults=True)
    words = {key: Path(v).name if key in ("text", "documents") else v for key, v in given.items()}
    return ", ".join(key if value is True else f"{key} {value}" for key, value in words.items())


def _versions(found: Mapping[str, str]) -> str:
    names = ("compression-hpo", "python", "torch", "transformers", "cpu", "gpus")
    return ", ".join(f"{name} {found[name]}" for name in names if name in found) or "not recorded"


def _difference(rebuilt: Rebuilt) -> str:
    if rebuilt.difference == 0:
        return "equal to the bit"
    size = f"a relative difference of {rebuilt.difference:+.2g}"
    return size if rebuilt.is_same else f"{size}: **more than arithmetic explains, less than is refused**"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
