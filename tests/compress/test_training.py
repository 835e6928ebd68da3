import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hpo.compress.heal_knobs import Schedule
from hpo.compress.mezo import mezo_step, shift
from hpo.compress.training import PADDING, Course, batches, rate_share, split, train, training
from hpo.models.text import Corpus
from hpo.space import Value
from tests.compress.healing import counting, knobs


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        # 10 steps: one of rise, then nine of the schedule
        ("constant", [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [1, 1, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9]),
        ("cosine", [1, 1, *(0.5 + 0.5 * math.cos(math.pi * k / 9) for k in range(1, 9))]),
    ],
)
def test_a_schedule_rises_and_then_falls_as_it_says(schedule: Schedule, shares: list[float]) -> None:
    assert [rate_share(schedule, 10, step) for step in range(10)] == pytest.approx(shares)


def test_the_rise_takes_a_tenth_of_the_steps() -> None:
    assert [rate_share("constant", 40, step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


# Courses on one number w, whose loss is w^2 / 2


def course(weight: nn.Parameter, steps: int, check: float | None = None, **values: Value) -> Course:
    def forever() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield torch.zeros(1, 2), torch.zeros(1, 1)

    return Course(
        parameters=[weight],
        loss=lambda _ids, _targets: (weight.float() ** 2).sum() / 2,
        batches=forever(),
        knobs=knobs(schedule="constant", **values),
        steps=steps,
        seed=5,
        check=lambda: float(weight) if check is None else check,
    )


def test_the_first_step_of_adamw_is_as_long_as_the_rate() -> None:
    # m / sqrt(v) is the sign of the gradient w = 3, whatever its size; there is no decay
    weight = nn.Parameter(torch.tensor([3.0]))
    trained = train(course(weight, 1, learning_rate=0.25))
    assert weight.item() == pytest.approx(2.75)
    assert (trained.steps, trained.is_sound) == (1, True)
    assert not weight.requires_grad
    assert weight.grad is None


def test_a_step_of_mezo_follows_the_slope_along_its_direction() -> None:
    # loss w^2 / 2 has slope w z along z, exactly, so w becomes w (1 - rate z^2)
    weight, z = torch.tensor([3.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    shift([z], seed=11, by=1.0)
    mean = mezo_step([weight], lambda: float(weight**2) / 2, seed=11, rate=0.1, perturbation=0.5)
    assert weight.item() == pytest.approx(3 * (1 - 0.1 * z.item() ** 2))
    # the mean of (3 + z / 2)^2 / 2 and (3 - z / 2)^2 / 2
    assert mean == pytest.approx(4.5 + z.item() ** 2 / 8)


def test_a_step_of_mezo_without_a_finite_loss_moves_nothing() -> None:
    weight = torch.tensor([3.0])
    assert math.isnan(mezo_step([weight], lambda: math.nan, seed=11, rate=0.1, perturbation=0.5))
    assert weight.item() == pytest.approx(3.0)


def test_directions_are_the_same_for_the_same_seed_and_standard_normal() -> None:
    first, second, other = torch.zeros(4000), torch.zeros(4000), torch.zeros(4000)
    shift([first], 1, 1.0)
    shift([second], 1, 1.0)
    shift([other], 2, 1.0)
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)
    assert abs(float(first.mean())) < 0.1
    assert abs(float(first.std()) - 1) < 0.1


@pytest.mark.parametrize("optimiser", ["adamw", "mezo"])
def test_courses_go_down(optimiser: str) -> None:
    weight = nn.Parameter(torch.tensor([3.0]))
    train(course(weight, 60, optimiser=optimiser, learning_rate=0.1))
    assert abs(weight.item()) < 0.5


@pytest.mark.parametrize("optimiser", ["adamw", "mezo"])
def test_half_precision_is_trained_through_float32(optimiser: str) -> None:
    # 1 + 2^-9 is not a bfloat16: steps of that size add up only where something finer holds them
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.bfloat16))
    train(course(weight, 40, optimiser=optimiser, learning_rate=2.0**-9))
    assert weight.dtype == torch.bfloat16
    assert weight.item() < 0.98


def test_a_loss_that_is_not_finite_ends_the_course() -> None:
    weight = nn.Parameter(torch.tensor([3.0]))
    planned = course(weight, 10)
    losses = iter([1.0, 1.0, math.inf])
    trained = train(replace(planned, loss=lambda _i, _t: weight.sum() * 0 + next(losses)))
    assert (trained.steps, trained.is_sound) == (2, False)


def test_patience_keeps_the_best_state_and_stops() -> None:
    weight = nn.Parameter(torch.tensor([3.0]))
    losses, seen = iter([5.0, 4.0, 4.5, 4.2, 0.0]), []

    def check() -> float:
        seen.append(weight.item())
        return next(losses)

    planned = course(weight, 50, learning_rate=0.01, patience=2, check_every=3)
    trained = train(replace(planned, check=check))
    # checks after 3, 6, 9 and 12 steps; the best is the second, and two more did not gain
    assert (trained.steps, trained.is_sound) == (12, True)
    assert weight.item() == seen[1] != seen[3]


def test_patience_looks_at_the_last_state_too_and_survives_a_bad_end() -> None:
    weight = nn.Parameter(torch.tensor([3.0]))
    seen: list[float] = []

    def check() -> float:
        seen.append(weight.item())
        return -float(len(seen))  # ever better

    trained = train(replace(course(weight, 5, learning_rate=0.01, patience=9, check_every=3), check=check))
    assert (trained.steps, len(seen), weight.item()) == (5, 2, seen[1])

    losses = iter([1.0] * 4 + [math.nan])
    planned = replace(course(weight, 9, patience=9, check_every=3), check=check)
    trained = train(replace(planned, loss=lambda _i, _t: (weight * next(losses)).sum()))
    assert (trained.steps, trained.is_sound, weight.item()) == (4, True, seen[-1])


def test_nothing_checked_as_finite_is_not_sound() -> None:
    weight = nn.Parameter(torch.tensor([3.0]))
    assert not train(course(weight, 4, check=math.inf, patience=5, check_every=2)).is_sound


def test_a_course_yields_the_steps_taken_and_ends_as_one_without_a_pause() -> None:
    whole, paused = (nn.Parameter(torch.tensor([3.0])) for _ in range(2))
    expected = train(course(whole, 5, learning_rate=0.1))
    run = training(course(paused, 5, learning_rate=0.1))
    seen = [(next(run), paused.item()) for _ in range(5)]
    with pytest.raises(StopIteration) as end:
        next(run)
    assert end.value.value == expected
    assert [steps for steps, _ in seen] == [1, 2, 3, 4, 5]
    assert len({value for _, value in seen}) == 5
    assert torch.equal(paused, whole)


@pytest.mark.parametrize("optimiser", ["adamw", "mezo"])
def test_a_course_closed_early_leaves_its_parameters_frozen_where_they_are(optimiser: str) -> None:
    weight = nn.Parameter(torch.tensor([3.0]), requires_grad=False)
    run = training(course(weight, 5, optimiser=optimiser, learning_rate=0.1))
    trained = [weight.requires_grad]  # nothing is done before it is driven
    next(run)
    trained.append(weight.requires_grad)
    reached = weight.item()
    run.close()
    assert [*trained, weight.requires_grad] == [False, True, False]
    assert weight.grad is None
    assert weight.item() == reached != 3.0


# Text


def test_a_tenth_of_the_text_is_held_out() -> None:
    text, held_out = split(counting(25))
    assert (len(text.sequences), len(held_out.sequences)) == (23, 2)
    alone = counting(1)
    assert split(alone) == (alone, alone)


def test_batches_take_every_sequence_once_a_round_and_pad_on_the_right() -> None:
    rows = tuple(torch.tensor([10 + n] * n) for n in (2, 3, 4))
    corpus = Corpus(rows, bytes=9, digest="")
    drawn = batches(corpus, 2, 7, torch.device("cpu"))
    (first, first_targets), (last, _) = next(drawn), next(drawn)
    assert sorted([*first[:, 0].tolist(), *last[:, 0].tolist()]) == [12, 13, 14]
    longest = first.shape[1]
    for ids, targets in zip(first.tolist(), first_targets.tolist(), strict=True):
        real = ids[0] - 10
        assert ids == [ids[0]] * real + [0] * (longest - real)
        assert targets == [ids[0]] * (real - 1) + [PADDING] * (longest - real)
    again = batches(corpus, 2, 7, torch.device("cpu"))
    assert torch.equal(next(again)[0], first)
