"""What is kept of an error that ended a trial: its cause, and its words without any secret."""

import pytest
import torch

from hpo.compress.keeper import Preempted
from hpo.errors import NonFinite, Unsupported
from hpo.run.causes import failure_of
from hpo.trial import Cause


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (torch.OutOfMemoryError("3 GiB"), Cause.OUT_OF_MEMORY),
        (RuntimeError("not enough memory: you tried to allocate 9 bytes"), Cause.OUT_OF_MEMORY),
        (NonFinite("the loss is NaN"), Cause.NOT_A_NUMBER),
        (Unsupported("rank 9 above the cap"), Cause.UNSUPPORTED),
        (Preempted("told to go"), Cause.PREEMPTED),
        (ValueError("anything else"), Cause.ERROR),
    ],
)
def test_an_error_has_its_cause(error: Exception, cause: Cause) -> None:
    assert failure_of(error).cause is cause


def test_no_secret_of_the_process_is_kept_in_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretindeed")
    failure = failure_of(OSError("401 for hf_verysecretindeed at https://user:hunter2secret@host/x"))
    assert failure.message.startswith("OSError: 401 for ***")
    assert "hunter2secret" not in failure.message
