"""The calendar of a run."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overparam.runs.training.timetable import Timetable
from overparam.specs import SGD, TrainSpec


def table(num_train: int, batch_size: int, **length: object) -> Timetable:
    spec = TrainSpec.model_validate({"optimizer": SGD(lr=0.1), "batch_size": batch_size, **length})
    return Timetable(spec, num_train)


@given(num_train=st.integers(1, 500), batch_size=st.integers(1, 600), epochs=st.integers(1, 20))
def test_every_example_is_used_once_per_epoch(num_train: int, batch_size: int, epochs: int) -> None:
    calendar = table(num_train, batch_size, epochs=epochs)
    assert (calendar.steps_per_epoch - 1) * calendar.batch_size < num_train
    assert calendar.steps_per_epoch * calendar.batch_size >= num_train
    assert calendar.total_steps == epochs * calendar.steps_per_epoch
    assert calendar.epoch_ends()[-1] == calendar.total_steps


def test_cosine_is_annealed_per_epoch_from_lr_towards_zero() -> None:
    calendar = table(100, 25, epochs=10)
    rates = [calendar.lr(step) for step in range(40)]
    assert rates[:4] == [0.1] * 4
    assert rates[4] == pytest.approx(0.05 * (1 + math.cos(math.pi / 10)))
    assert rates[36:] == [rates[36]] * 4
    assert rates == sorted(rates, reverse=True)
    assert table(100, 25, epochs=10, schedule="constant").lr(39) == 0.1


@given(
    num_train=st.integers(1, 500), batch_size=st.integers(1, 500), steps=st.integers(1, 300), count=st.integers(1, 12)
)
def test_evaluations_are_epoch_ends_with_the_last(num_train: int, batch_size: int, steps: int, count: int) -> None:
    calendar = table(num_train, batch_size, steps=steps)
    moments = calendar.log_spaced(count)
    assert moments <= set(calendar.epoch_ends())
    assert max(moments) == steps
    assert len(moments) <= count + 1


def test_loss_checks_come_eight_times_per_epoch() -> None:
    calendar = table(1000, 10, epochs=2, until_train_loss=0.1, schedule="constant")
    checks = sorted(calendar.eighths())
    assert len(checks) == 16
    assert checks[7] == 100
    assert max(b - a for a, b in zip([0, *checks], checks, strict=False)) <= 13
