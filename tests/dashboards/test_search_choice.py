from dashboards.search_choice import SearchChoice

OFFERED = {
    "over": ["trials", "hours"],
    "more": ["times-1", "rest"],
    "parameter": ["factorise", "a & b=c?"],
    "objective": ["perplexity", "energy"],
}


def test_a_choice_survives_its_address() -> None:
    choice = SearchChoice("hours", "rest", "a & b=c?", "energy")
    assert SearchChoice.read(choice.search, OFFERED) == choice


def test_what_is_missing_or_not_offered_is_the_first_that_is() -> None:
    first = SearchChoice("trials", "times-1", "factorise", "perplexity")
    assert SearchChoice.read(None, OFFERED) == first
    assert SearchChoice.read("?over=<b>&more=times-9&parameter=none", OFFERED) == first
    assert SearchChoice.read("?objective=energy", OFFERED).objective == "energy"


def test_where_nothing_is_offered_nothing_stands_in_the_address() -> None:
    choice = SearchChoice.read("?more=rest", {**OFFERED, "more": []})
    assert choice.more == ""
    assert "more" not in choice.search
