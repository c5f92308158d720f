"""Specs of runs: what is refused, and what follows from what is given."""

from typing import Any

import pytest
from pydantic import ValidationError

from overparam.specs import CNN, MLP, SGD, Adam, DataSpec, Fresh, Magnitude, Rewind, RunSpec, ShuffledMask, TrainSpec

SPEC = RunSpec(
    data=DataSpec(name="digits"), model=MLP(width=8), train=TrainSpec(optimizer=SGD(lr=0.1), batch_size=32, epochs=2)
)


def train(**fields: Any) -> TrainSpec:
    return TrainSpec(**({"optimizer": SGD(lr=0.1), "batch_size": 32, "epochs": 2} | fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 3}, "exactly one of epochs and steps"),
        ({"epochs": None}, "exactly one of epochs and steps"),
        ({"epochs": 0}, "greater than 0"),
        ({"batch_size": 0}, "greater than or equal to 1"),
        ({"batch_size": "all"}, "Input should be 'full'"),
        ({"until_train_loss": 0.1}, 'needs schedule="constant"'),
        ({"until_train_loss": (), "schedule": "constant"}, "an empty tuple names no target"),
        ({"until_train_loss": (0.1, 0.2), "schedule": "constant"}, "distinct and descending"),
        ({"until_train_loss": (0.1, 0.1), "schedule": "constant"}, "distinct and descending"),
        ({"until_train_loss": -1.0, "schedule": "constant"}, "greater than 0"),
        ({"loss_checks_per_epoch": 7}, "greater than or equal to 8"),
        ({"loss": "hinge"}, "'cross_entropy' or 'mse'"),
        ({"epoch": 3}, "Extra inputs are not permitted"),
    ],
)
def test_invalid_training_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        train(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "at least 1 character"),
        ({"num_train": 0}, "greater than or equal to 1"),
        ({"num_val": -1}, "greater than or equal to 0"),
        ({"label_noise": 1.1}, "less than or equal to 1"),
        ({"label_noise": float("nan")}, "finite number|less than or equal"),
        ({"subset": "random"}, "'balanced' or 'first'"),
        ({"data_seed": -1}, "greater than or equal to 0"),
    ],
)
def test_invalid_data_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataSpec(**({"name": "digits"} | fields))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(width=0), "greater than or equal to 1"),
        (lambda: MLP(width=(8, 0)), "greater than or equal to 1"),
        (lambda: MLP(width=(300, 100), depth=5), "depth=5 but 2 widths make depth 3"),
        (lambda: CNN(channels=0), "greater than or equal to 1"),
        (lambda: SGD(lr=0.0), "greater than 0"),
        (lambda: SGD(lr=float("inf")), "finite number"),
        (lambda: SGD(lr=0.1, momentum=1.0), "less than 1"),
        (lambda: SGD(lr=0.1, weight_decay=-1.0), "greater than or equal to 0"),
        (lambda: Adam(lr=0.1, betas=(0.9, 1.0)), r"each beta must lie in \[0, 1\)"),
        (lambda: Rewind(of=SPEC, step=-1), "greater than or equal to 0"),
        (lambda: Magnitude(of=SPEC, fraction={"0.weight": 1.5}), "less than or equal to 1"),
    ],
)
def test_invalid_parts_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make()


def test_specs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SPEC.seed = 1  # type: ignore[misc]


def test_a_tuple_of_widths_implies_its_depth() -> None:
    model = MLP(width=(300, 100))
    assert (model.depth, model.widths) == (3, (300, 100))
    assert MLP(width=16).widths == (16, 16, 16)
    assert MLP(width=16, depth=1).widths == ()


@pytest.mark.parametrize(
    ("data", "known"),
    [
        (DataSpec(name="own", num_train=5), 5),
        (DataSpec(name="own"), None),
        (DataSpec(name="mnist", num_val=10_000), 50_000),
        (DataSpec(name="digits"), 1297),
    ],
)
def test_number_of_training_examples_that_needs_no_data(data: DataSpec, known: int | None) -> None:
    assert data.known_num_train() == known


@pytest.mark.parametrize(("value", "targets"), [(None, ()), (0.1, (0.1,)), ((0.5, 0.1), (0.5, 0.1))])
def test_loss_targets(value: Any, targets: tuple[float, ...]) -> None:
    assert train(until_train_loss=value, schedule="constant").loss_targets == targets


def test_specs_take_their_fields_in_order() -> None:
    sgd: Any = SGD
    mlp: Any = MLP
    assert sgd(0.1, 0.8) == SGD(lr=0.1, momentum=0.8)
    assert mlp((8, 16), activation="tanh") == MLP(width=(8, 16), activation="tanh")
    with pytest.raises(TypeError, match=r"SGD takes 3 values \(lr, momentum, weight_decay\), not 4"):
        sgd(0.1, 0.9, 0.0, 1)
    with pytest.raises(TypeError, match="SGD got two values for lr"):
        sgd(0.1, lr=0.2)


def test_copies_are_validated() -> None:
    with pytest.raises(ValidationError, match="sead"):
        SPEC.model_copy(update={"sead": 5})
    whole = SPEC.train.model_copy(update={"batch_size": 10**6})
    assert SPEC.model_copy(update={"train": whole}).train.batch_size == "full"


def test_unknown_streams_are_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"streams.ordr: no such stream; allowed: init, mask, order; nearest match: order"
    ):
        SPEC.model_copy(update={"streams": {"ordr": 7}})
    own = SPEC.model_copy(update={"init": Fresh(stream="init-2"), "streams": {"init-2": 7}})
    assert own.stream_seed("init-2") == 7


def test_streams_override_the_seed_of_one_purpose() -> None:
    spec = SPEC.model_copy(update={"seed": 3, "streams": {"order": 7}})
    assert (spec.stream_seed("order"), spec.stream_seed("init")) == (7, 3)


def test_parents_are_listed_once() -> None:
    assert SPEC.parents() == ()
    both = SPEC.model_copy(update={"init": Rewind(of=SPEC), "mask": Magnitude(of=SPEC, fraction=0.5)})
    assert both.parents() == (SPEC,)
    assert both.model_copy(update={"mask": ShuffledMask(of=both)}).parents() == (SPEC, both)


def test_unknown_sizes_leave_the_batch_size_alone() -> None:
    spec = RunSpec(data=DataSpec(name="own"), model=MLP(width=8), train=train(batch_size=10**9))
    assert spec.train.batch_size == 10**9
