"""What more work would buy, on a study whose gains are worked out by hand."""

import math

import pytest

from dashboards.outlook import Basis, NoOutlook, amounts, basis_of, hours_left, outlook, share_text
from dashboards.remaining import remaining_of
from hpo.budget import Budget
from hpo.search.plateau import gamma_quantile
from hpo.store.spending import Spent, Work
from hpo.study import Study
from hpo.trial import Trial
from tests.dashboards.hand import answered, measurement, pair
from tests.store.samples import make_study


def study_of(**search: object) -> Study:
    """Return a study of the two metrics of `hand`, without limits, whose search starts with one trial."""
    document = make_study().to_mapping()
    return Study.from_mapping(document | {"search": document["search"] | {"initial": 1, **search}})


def trial(number: int, perplexity: float, memory: float) -> Trial:
    return pair(number, perplexity, memory, "anchor:dense" if number == 0 else "sobol")


# The box goes from 0 to 11 ppl (1.1 x the anchor) and 110 bytes. The anchor fills 1 x 10 of 1210.
ANCHOR = trial(0, 10, 100)
IDLE = [trial(n, 10.5, 105) for n in range(2, 12)]


def searched() -> list[Trial]:
    """Return a start of one trial, then ten of an hour each: the third to last adds 5 x 50 less what the
    anchor has of it, 1 x 10; the last one adds 1 x 10 more to that."""
    gainers = {9: trial(9, 6, 60), 11: trial(11, 5.8, 60)}
    return [ANCHOR, trial(1, 10, 100), *(gainers.get(t.number, t) for t in IDLE)]


SPENT = Spent(trials=12, hours=6.0, work=Work(seconds=12 * 3600.0, joules=2400.0, stages=12), gpus=0.0)


def basis(trials: list[Trial], spent: Spent = SPENT, **search: object) -> Basis:
    found = basis_of(study_of(**search), trials, spent)
    assert isinstance(found, Basis)
    return found


GAINS = ((5 * 50 - 10) / 1210, 0.2 * 50 / 1210)
"""Of trials 9 and 11."""


def test_the_rate_is_what_the_searched_trials_added_over_what_they_took() -> None:
    found = basis(searched())
    assert found.growth.trials == 10
    assert found.growth.hours == 10
    assert found.rate == pytest.approx(sum(GAINS) / 10)
    assert found.pace == pytest.approx(1.0)
    assert found.share == pytest.approx((10 + 240 + 10) / 1210)


def test_the_interval_is_that_of_fay_and_feuer() -> None:
    # From their formula: both ends are gamma quantiles, the upper with one more gain of the largest size.
    total, squares = sum(GAINS), sum(g * g for g in GAINS)
    low = squares / total * gamma_quantile(total**2 / squares, 0.05)
    y, v = total + max(GAINS), squares + max(GAINS) ** 2
    high = v / y * gamma_quantile(y**2 / v, 0.95)
    ahead = outlook(basis(searched()), 2.0)
    assert ahead.low == pytest.approx(2 * low / 10)
    assert ahead.expected == pytest.approx(2 * total / 10)
    assert ahead.high == pytest.approx(2 * high / 10)


def test_one_gain_alone_has_the_limits_of_a_poisson_count_of_one() -> None:
    # Garwood: a mean of 0.0513 would show one event or more in 5 %, one of 4.744 at most one in 5 %.
    trials = [*searched()[:9], trial(9, 6, 60)]
    found = basis(trials)
    gain = 240 / 1210 / found.growth.hours
    assert found.low == pytest.approx(-math.log(0.95) * gain)
    assert found.growth.bound == pytest.approx(4.7439 * gain, rel=1e-4)


def test_where_nothing_was_gained_lately_the_least_is_nothing_and_the_most_is_not() -> None:
    trials = [ANCHOR, trial(1, 5, 50), *IDLE]
    ahead = outlook(basis(trials), 5.0)
    assert (ahead.low, ahead.expected) == (0, 0)
    assert ahead.high > 0
    assert "would add 0 % of the box on average, with 90 % confidence between 0 % and" in ahead.words


def test_only_as_many_trials_count_as_the_rule_of_ending_looks_at() -> None:
    found = basis(searched(), plateau={"gain_per_hour": 0.1, "trials": 5})
    assert found.growth.trials == 5
    assert found.rate == pytest.approx(sum(GAINS) / 5)


def test_the_box_cannot_be_more_than_full() -> None:
    ahead = outlook(basis(searched()), 1e6)
    assert ahead.basis.share + ahead.expected == pytest.approx(1.0)
    assert ahead.high == ahead.expected
    assert "the box is full then" in ahead.words


def test_hours_in_the_past_are_refused() -> None:
    with pytest.raises(ValueError, match="-1 hours"):
        outlook(basis(searched()), -1.0)


def test_the_sentence_says_amount_estimate_and_interval() -> None:
    said = outlook(basis(searched()), 10.0).words
    assert said.startswith("10 h of work more (about 10 trials, about 5 h by the clock) would add 21 % of")
    assert "from 21.5 % to about 42.1 %" in said
    assert said.endswith("Judged by the last 10 searched trials, which took 10 h of work and added 21 %.")


def test_on_gpus_it_speaks_of_gpu_hours() -> None:
    on_gpus = Spent(12, 6.0, SPENT.work, gpus=2.0)
    found = basis(searched(), on_gpus)
    assert found.growth.hours == 20
    assert outlook(found, 10.0).words.startswith("10 GPU-hours more (about 5 trials, about 2 h 30 min by")
    labels = [said for said, _ in amounts(found, remaining_of(Budget(trials=12), on_gpus, 12)).values()]
    assert "5 GPU-hours" in labels


def test_the_band_is_as_long_as_the_axis_has_it() -> None:
    ahead = outlook(basis(searched()), 3.0)
    bands = [ahead.band("trials", 12.0), ahead.band("seconds", 100.0), ahead.band("hours", 12.0)]
    # An hour of work takes half an hour by the clock.
    assert [band.at for band in bands if band] == pytest.approx([15.0, 100 + 3 * 1800, 15.0])
    assert bands[0] is not None
    assert bands[0].expected == pytest.approx(ahead.basis.share + ahead.expected)


def test_without_a_clock_there_is_no_band_over_it() -> None:
    ahead = outlook(basis(searched(), Spent(12, 0.0, SPENT.work, 0.0)), 3.0)
    assert ahead.band("seconds", 100.0) is None
    assert "by the clock" not in ahead.words


@pytest.mark.parametrize(
    ("budget", "hours"),
    [
        ({"trials": 15}, 3.0),  # one an hour
        ({"hours": 8}, 4.0),  # half an hour by the clock an hour of work
        ({"joules": 3000}, 3.0),  # 200 J an hour
        ({"trials": 15, "hours": 6.5}, 1.0),  # whichever ends first
    ],
)
def test_the_rest_of_the_budget_is_turned_into_work(budget: dict[str, float], hours: float) -> None:
    left = remaining_of(Budget.model_validate(budget), SPENT, finished=12)
    assert hours_left(basis(searched()), left) == pytest.approx(hours)
    said, offered = amounts(basis(searched()), left)["rest"]
    assert offered == pytest.approx(hours)
    assert said == f"the rest of the budget: {hours:g} h of work"


def test_a_used_budget_has_no_rest_to_ask_for() -> None:
    left = remaining_of(Budget(trials=12), SPENT, finished=12)
    assert "rest" not in amounts(basis(searched()), left)


def test_amounts_are_multiples_of_what_was_judged_and_round_hours_near_it() -> None:
    offered = amounts(basis(searched()), remaining_of(Budget(trials=12), SPENT, finished=12))
    assert offered["times-2"] == ("2 × the last 10 trials: 20 h of work", 20.0)
    assert offered["hours-1"] == ("1 hour of work", 1.0)
    assert [key for key in offered if key.startswith("hours")] == [
        f"hours-{n}" for n in (1, 2, 5, 10, 20, 50, 100)
    ]


def test_before_the_dense_model_nothing_is_said() -> None:
    found = basis_of(study_of(), searched()[1:], SPENT)
    assert isinstance(found, NoOutlook)
    assert "dense model" in found.why


def test_after_few_trials_it_says_how_many_are_missing() -> None:
    found = basis_of(study_of(), searched()[:6], SPENT)
    assert isinstance(found, NoOutlook)
    assert "once 5 trials after the start design are over; so far there are 4" in found.why


def test_where_nothing_of_the_box_is_covered_nothing_is_said() -> None:
    without = answered(0, measurement("perplexity", 10), origin="anchor:dense")
    smallest = answered(1, measurement("weight_memory", 100), origin="anchor:smallest")
    found = basis_of(study_of(), [without, smallest, *(trial(n, 20, 200) for n in range(2, 12))], SPENT)
    assert isinstance(found, NoOutlook)
    assert "cannot be said" in found.why


def test_small_shares_keep_their_digits() -> None:
    assert [share_text(share) for share in (0.0, 0.000014, 0.0123, 0.5)] == [
        "0 %",
        "0.0014 %",
        "1.2 %",
        "50 %",
    ]
