"""A model with its texts, on which candidates are compressed, healed and judged. No search, no store."""

import json
import math
import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from hpo.compress.applying import compressed, healed
from hpo.compress.plan import Plan
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.profiling import Profiler
from hpo.measure.quality import mean_nll
from hpo.models.dense import DenseModel, load_model
from hpo.models.text import Corpus, Role, read_corpus
from hpo.space import Candidate, Value
from hpo.study import ModelSource, TextSource

ASSETS = Path(os.environ.get("HPO_ASSETS", Path(__file__).parents[2] / "shared" / "assets"))
"""Small published models and texts, where they are at hand."""


@dataclass(frozen=True)
class Outcome:
    """What a candidate made of a model."""

    plan: Plan
    raw: float
    """Perplexity before healing; of the evaluation text, as the next."""
    final: float
    """After it; the same without healing."""
    held_out: float = math.nan
    """Nats per token after healing, of the calibration text held out from it."""

    @property
    def kept(self) -> float:
        """Share of the weights of the linear layers."""
        return self.plan.linear_parameters / self.plan.architecture.linear_parameters


@dataclass(frozen=True)
class Laboratory:
    """Calibrates on one text, evaluates on another."""

    name: str
    model: ModelSource
    calibration: TextSource
    evaluation: TextSource

    @cached_property
    def dense(self) -> DenseModel:
        return load_model(self.model, "cpu")

    def _corpus(self, source: TextSource, role: Role) -> Corpus:
        return read_corpus(source, role, self.dense.tokenizer, self.dense.window(None))

    @cached_property
    def evaluation_text(self) -> Corpus:
        return self._corpus(self.evaluation, Role.EVALUATION)

    @cached_property
    def profiler(self) -> Profiler:
        calibration = self._corpus(self.calibration, Role.CALIBRATION)
        return Profiler(self.dense, calibration, self.dense.window(None))

    @cached_property
    def dense_perplexity(self) -> float:
        return self._perplexity(self.dense.module)

    def _perplexity(self, model: torch.nn.Module) -> float:
        return float(torch.tensor(mean_nll(model, self.evaluation_text)).exp())

    def plan(self, candidate: Candidate) -> Plan:
        profile = self.profiler.profile(preparations_of(candidate))
        return plan_of(profile, candidate)

    def run(self, values: dict[str, Value], seed: int | None = None) -> Outcome:
        """Compress, heal if asked, and judge. Without a seed the healing takes that of the plan."""
        candidate = Candidate.of(values)
        plan = self.plan(candidate)
        model = compressed(self.profiler, candidate, plan)
        raw = self._perplexity(model)
        outcome = healed(self.profiler, candidate, plan, model, seed=seed)
        if outcome is None:
            return Outcome(plan, raw, raw)
        held_out = min(outcome.before, outcome.after)
        return Outcome(plan, raw, self._perplexity(model), held_out)


def laboratories() -> list[Laboratory]:
    """Return the reference model and, where they are at hand, two published ones."""
    reference = TextSource(reference=True)
    found = [Laboratory("reference", ModelSource(source="reference"), reference, reference)]
    stories = ASSETS / "text" / "tinystories_clean.json"
    for name in ("stories260K", "babyllama-361"):
        if (ASSETS / "models" / name).is_dir() and stories.is_file():
            found.append(
                Laboratory(
                    name,
                    ModelSource(source=str(ASSETS / "models" / name)),
                    TextSource(text=str(_other_stories(stories)), tokens=32768),
                    TextSource(documents=str(stories), limit=200),
                )
            )
    return found


def _other_stories(stories: Path) -> Path:
    """Write the stories that are not evaluated on (those after the first 200) to a text file; return it."""
    told = json.loads(stories.read_text(encoding="utf-8"))[200:]
    texts = [story if isinstance(story, str) else story["text"] for story in told]
    path = Path(tempfile.gettempdir()) / "stories_to_calibrate_on.txt"
    path.write_text("\n\n".join(texts), encoding="utf-8")
    return path
