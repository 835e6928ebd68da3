"""What is said of a search's own model."""

import pytest

from hpo.skill import Foretold, Skill

SKILL = Skill("perplexity", 41, 0.213, 0.927, (Foretold(7, 5.0, 5.1, 4.9, 5.4),))


def test_a_skill_is_read_back_as_it_was() -> None:
    assert Skill.from_mapping(SKILL.to_mapping()) == SKILL


def test_a_skill_stored_before_single_trials_were_kept_is_read() -> None:
    old = {"metric": "perplexity", "trials": 41, "error": 0.213, "coverage": 0.927}
    assert Skill.from_mapping(old).foretold == ()


def test_an_interval_is_not_upside_down() -> None:
    with pytest.raises(ValueError, match=r"trial 7: an interval from 5\.4 to 4\.9"):
        Foretold(7, 5.0, 5.1, 5.4, 4.9)


def test_a_skill_is_said_in_words() -> None:
    said = "perplexity: error 0.21 of the spread over 41 trials, 93% of them inside its 90 % interval"
    assert SKILL.words == said


@pytest.mark.parametrize("values", [(0, 0.1, 0.9), (5, -0.1, 0.9), (5, float("nan"), 0.9), (5, 0.1, 1.1)])
def test_what_cannot_be_is_refused(values: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="no skill"):
        Skill("perplexity", *values)
