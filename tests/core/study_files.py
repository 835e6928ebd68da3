"""A small study and its space as text, and what it is to be refused."""

from collections.abc import Callable

import pytest

from hpo.errors import UsageError
from hpo.study_file import read_study

STUDY = """\
version: 1
name: mine
model: reference
objectives:
  - perplexity
  - {metric: weight_memory, limit: 1e6}
space: small
budget:
  trials: 5
"""
SPACE = """\
version: 1
question: >
  How small
  can it get?
parameters:
  factorise: {type: choice, choices: [svd, mpo]}
  factorise.keep_ratio:
    type: float
    low: 1e-1
    high: 0.9
    when: {factorise: svd}
"""

Write = Callable[[str], str]


def refusal(reference: str, *overrides: str, name: str | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_study(reference, overrides, name)
    assert caught.value.exit_code == 2
    return caught.value
