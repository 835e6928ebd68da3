"""What a study takes from outside: the model to compress, and texts. Parts of `hpo.study`."""

import re
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hpo.errors import InvalidStudy


class Part(BaseModel):
    """A part of a study: frozen, and without keys that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class ModelSource(Part):
    """Which model to compress."""

    source: str = Field(min_length=1)
    """``reference``, a local directory, or a hub id."""
    revision: str | None = None
    """Commit or tag on the hub."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Precision to load in; by default as stored."""
    trust_remote_code: bool = False
    """Run the code that comes with a hub model. Allowed for one commit only: what was read is what runs."""

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, data: Any) -> Any:
        return {"source": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _of_one_commit(self) -> Self:
        if self.trust_remote_code and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            given = "there is no revision" if self.revision is None else f"the revision is {self.revision!r}"
            raise InvalidStudy(
                f"model.trust_remote_code runs code of {self.source!r}, and {given}",
                "set model.revision to the commit whose code you have read, all 40 hexadecimal digits of it: "
                "a tag or branch may become other code",
                ("model", "revision" if self.revision is not None else "trust_remote_code"),
            )
        return self


class TextSource(Part):
    """Where text comes from; exactly one of `reference`, `text`, `documents`, `dataset`."""

    reference: bool = False
    """The part of the interpreter's own documentation that is kept for this purpose."""
    text: str | None = None
    """A text file, read as one stream and cut into windows of the context."""
    documents: str | None = None
    """A JSON file with a list of texts (or of objects with a `text`); each is read alone, BOS first."""
    dataset: str | None = None
    """A dataset on the hub or in its local cache (needs the package `datasets`)."""
    config: str | None = None
    split: str | None = None
    column: str = "text"
    limit: int | None = Field(default=None, ge=1)
    """Use the first so many documents only."""
    tokens: int | None = Field(default=None, ge=2)
    """Use the first so many tokens only."""

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, data: Any) -> Any:
        return {"reference": True} if data == "reference" else data

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        given = [self.reference or None, self.text, self.documents, self.dataset]
        if sum(source is not None for source in given) != 1:
            raise ValueError("give exactly one of reference, text, documents, dataset")
        return self

    @property
    def all_of_it(self) -> Self:
        """The whole source of which this may be a part."""
        return self.model_copy(update={"limit": None, "tokens": None})


class DataSource(Part):
    """Text to calibrate and heal on, and other text to judge by."""

    calibration: TextSource
    evaluation: TextSource
    context: int | None = Field(default=None, ge=2)
    """Window length in tokens; by default the model's own, 2048 at most."""

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        same = self.calibration.all_of_it == self.evaluation.all_of_it
        if same and not self.calibration.reference:
            raise ValueError(
                "calibration and evaluation are the same text|a model must not be judged on what it was "
                "fitted to; name another file, or another split of the dataset"
            )
        return self
