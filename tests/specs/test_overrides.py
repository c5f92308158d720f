"""Overrides: what is read from text, what a path may change, and that all errors come at once."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from overparam.specs import CNN, MLP, SGD, Adam, DataSpec, RandomMask, Rewind, RunSpec, TrainSpec
from overparam.specs.assignments import OverrideError, load_yaml, parse_assignments, parse_value
from overparam.specs.explain import explain
from overparam.specs.overrides import apply_overrides, spec_from_mapping, yaml_overrides
from overparam.studies.study import Study

BASE = RunSpec(
    data=DataSpec(name="digits"),
    model=MLP(width=32),
    train=TrainSpec(optimizer=SGD(lr=0.05), batch_size=128, steps=60),
)


def override(*texts: str, spec: RunSpec = BASE) -> RunSpec:
    return apply_overrides(spec, texts)


def problems(*texts: str, spec: RunSpec = BASE) -> list[str]:
    with pytest.raises(OverrideError) as caught:
        override(*texts, spec=spec)
    return str(caught.value).split("\n")


# ---- reading ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("010", 10),
        ("10_000", 10_000),
        ("1e-3", 1e-3),
        ("5E4", 5e4),
        ("1e5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("+.5e+1", 5.0),
        ("-1.5e-7", -1.5e-7),
        (".inf", float("inf")),
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("null", None),
        ("", None),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("0x10", "0x10"),
        ("1e", "1e"),
        ("full", "full"),
        ("'5'", "5"),
        ("[8,16]", [8, 16]),
        ("(8, 16)", [8, 16]),
        ("(8,)", [8]),
        ("[]", []),
        ("{fc1: .2, fc2: 1e-1}", {"fc1": 0.2, "fc2": 0.1}),
    ],
)
def test_parse_value(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@given(st.floats(allow_nan=False))
def test_floats_keep_their_value(value: float) -> None:
    text = repr(value).replace("inf", ".inf")
    [(path, parsed)] = parse_assignments([f"train.optimizer.lr={text}"])
    assert path == "train.optimizer.lr"
    assert parsed == value
    assert isinstance(parsed, float)


@given(st.integers())
def test_integers_keep_their_value(value: int) -> None:
    assert parse_assignments([f"seed = {value}"]) == [("seed", value)]


def test_value_may_hold_equals_signs() -> None:
    assert parse_assignments(["data.name=a=b"]) == [("data.name", "a=b")]


def test_unreadable_assignments_come_at_once() -> None:
    with pytest.raises(OverrideError) as caught:
        parse_assignments(["train", "=3", "a..b=3", "x=[1,", "y={a: 1, a: 2}", "seed=1"])
    lines = caught.value.problems
    assert len(lines) == 5
    assert lines[0] == "'train' is not an assignment; allowed: field=value, such as train.epochs=5"
    assert "cannot be read" in lines[3]
    assert "given twice: a" in lines[4]


# ---- applying ---------------------------------------------------------------------------------------------------


def test_nothing_to_override_gives_the_same_spec() -> None:
    assert override() == BASE


def test_fields_are_replaced_by_path() -> None:
    spec = override("data.label_noise=.15", "model.width=(8,16)", "seed=3", "streams.order=7", "data.normalize=no")
    assert spec.data == DataSpec(name="digits", label_noise=0.15, normalize=False)
    assert spec.model == MLP(width=(8, 16))
    assert (spec.seed, spec.streams) == (3, {"order": 7})
    assert BASE.seed == 0


@settings(deadline=None)
@given(st.floats(min_value=1e-300, max_value=1e300))
def test_learning_rates_arrive_unchanged(lr: float) -> None:
    assert override(f"train.optimizer.lr={lr!r}").train.optimizer.lr == lr


def test_epochs_and_steps_clear_each_other() -> None:
    by_epochs = override("train.epochs=5")
    assert (by_epochs.train.epochs, by_epochs.train.steps) == (5, None)
    assert override("train.steps=60", spec=by_epochs) == BASE


def test_epochs_and_steps_together_are_an_error() -> None:
    assert problems("train.epochs=5", "train.steps=6") == [
        "train: give exactly one of epochs and steps (with until_train_loss it is the cap)"
    ]


def test_a_list_of_widths_replaces_the_depth() -> None:
    assert override("model.width=[8,8,8,8,8]").model == MLP(width=(8, 8, 8, 8, 8), depth=6)
    assert problems("model.width=[8,9]", "model.depth=7") == [
        "model: depth=7 but 2 widths make depth 3; omit depth",
    ]


def test_a_new_kind_keeps_shared_fields_only() -> None:
    assert override("train.optimizer.kind=adam").train.optimizer == Adam(lr=0.05)


@pytest.mark.parametrize("texts", [("model.channels=4", "model.kind=cnn"), ("model.kind=cnn", "model.channels=4")])
def test_order_of_kind_and_its_fields_does_not_matter(texts: tuple[str, ...]) -> None:
    assert override(*texts).model == CNN(channels=4)


def test_a_whole_table_may_be_given() -> None:
    assert override("mask={kind: random, fraction: .5}").mask == RandomMask(fraction=0.5)


def test_parents_can_be_reached() -> None:
    child = BASE.model_copy(update={"init": Rewind(of=BASE, step=4)})
    spec = override("init.of.train.optimizer.kind=adam", "init.of.data.num_train=500", spec=child)
    assert isinstance(spec.init, Rewind)
    assert spec.init.of.train.optimizer == Adam(lr=0.05)
    assert spec.init.of.data.num_train == 500


def test_the_result_is_normalized() -> None:
    assert override("data.num_train=100").train.batch_size == "full"


# ---- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed=-1", "seed = -1; allowed: an integer ≥ 0"),
        ("train.batch_size=ful", 'train.batch_size = "ful"; allowed: an integer ≥ 1 or "full"; nearest match: full'),
        (
            "train.optimizer.momentun=.5",
            "train.optimizer.momentun = 0.5: no such field; allowed: kind, lr, momentum, weight_decay; "
            "nearest match: momentum",
        ),
        (
            "trian.epochs=3",
            'trian = {"epochs": 3}: no such field; allowed: data, model, train, init, mask, seed, streams; '
            "nearest match: train",
        ),
        ("model.kind=mpl", 'model.kind = "mpl"; allowed: "mlp" or "cnn"; nearest match: mlp'),
        ("model.kind=cnn", "model.channels: missing; allowed: an integer ≥ 1"),
        ("model.width=[8,x]", 'model.width = [8, "x"]; allowed: an integer ≥ 1 or a list [an integer ≥ 1, …]'),
        ("train.optimizer=adam", 'train.optimizer = "adam"; allowed: a table of kind "sgd" or a table of kind "adam"'),
        ("train.optimizer.momentum=1", "train.optimizer.momentum = 1; allowed: a number ≥ 0 and < 1"),
        ("train.optimizer.lr=.inf", "train.optimizer.lr = Infinity; allowed: a number > 0"),
        ("streams.order=-3", "streams.order = -3; allowed: a table of names with an integer ≥ 0 each"),
        ("seed.x=3", "seed.x = 3: seed holds 0, which has no fields"),
        ("data.name=", "data.name = null; allowed: a text not empty"),
        (
            "train.until_train_loss=.1",
            'train: until_train_loss needs schedule="constant": a decaying rate freezes the loss instead',
        ),
    ],
)
def test_an_error_names_field_value_allowed_and_nearest(text: str, line: str) -> None:
    assert problems(text) == [line]


def test_field_validators_show_their_value() -> None:
    lines = problems("train.optimizer.kind=adam", "train.optimizer.betas=[.9,1.5]")
    assert lines == ["train.optimizer.betas = [0.9, 1.5]: each beta must lie in [0, 1)"]


def test_all_errors_come_at_once() -> None:
    texts = ["data.nam=x", "data.subset=ballanced", "model.depht=3", "train.optimizer.lr=0", "train.epoch=5", "sed=1"]
    lines = problems(*texts, "seed=1", "seed=2", "model.width.x=1")
    for start in [text.partition("=")[0] for text in texts]:
        assert sum(line.startswith(f"{start} = ") for line in lines) == 1
    assert "seed: given 2 times; allowed: once" in lines
    assert "model.width.x = 1: model.width holds 32, which has no fields" in lines
    assert len(lines) == len(texts) + 2


def test_errors_of_parents_come_with_their_path() -> None:
    child = BASE.model_copy(update={"init": Rewind(of=BASE)})
    lines = problems("init.of.data.num_val=-1", "init.of.train.steps=0", "init.step=-1", "data.num_val=-2", spec=child)
    starts = ["data.num_val = -2", "init.of.data.num_val = -1", "init.of.train.steps = 0", "init.step = -1"]
    assert sorted(line.partition(";")[0] for line in lines) == starts


def test_long_values_are_shortened() -> None:
    [line] = problems(f"train.batch_size={'x' * 500}")
    assert len(line) < 150


# ---- whole specs ------------------------------------------------------------------------------------------------


def test_a_dumped_spec_comes_back() -> None:
    child = BASE.model_copy(update={"init": Rewind(of=BASE)})
    assert spec_from_mapping(child.model_dump(mode="json")) == child


def test_yaml_file_to_spec(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(
        "data: {name: digits}\n"
        "model: {kind: mlp, width: [8, 16], bias: true}\n"
        "train:\n  optimizer: {kind: sgd, lr: 5e-2}\n  batch_size: full\n  epochs: 10_0\n"
    )
    spec = spec_from_mapping(load_yaml(file))
    assert spec.train == TrainSpec(optimizer=SGD(lr=0.05), batch_size="full", epochs=100)
    assert spec.model == MLP(width=(8, 16))


def test_a_file_keeps_tables_of_names_whole(tmp_path: Path) -> None:
    """A name of a tensor has a dot, which is no step of a path; fields given by path in a file still are."""
    file = tmp_path / "spec.yaml"
    file.write_text(
        'mask: {kind: random, scope: layer, fraction: {"1.weight": 0.5, rest: .1}}\n'
        "train.steps: 7\n"
        "train: {optimizer.lr: 0.2}\n"
    )
    texts = yaml_overrides(file)
    assert parse_assignments(texts) == [
        ("mask.kind", "random"),
        ("mask.scope", "layer"),
        ("mask.fraction", {"1.weight": 0.5, "rest": 0.1}),
        ("train.steps", 7),
        ("train.optimizer.lr", 0.2),
    ]
    found = override(*texts, spec=BASE)
    assert found.mask == RandomMask(fraction={"1.weight": 0.5, "rest": 0.1})
    assert (found.train.steps, found.train.optimizer.lr) == (7, 0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", r"holds \[1\]; allowed: a table of fields"),
        ("a: [1", r"cannot be read; .*\(line 1, column 6\)"),
        ("seed: 1\nseed: 2", "given twice: seed"),
        ("a: !!python/object:os.system {}", "cannot be read; could not determine a constructor"),
    ],
)
def test_yaml_that_is_no_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    with pytest.raises(OverrideError, match=message):
        load_yaml(file)


def test_every_missing_and_wrong_field_of_a_mapping() -> None:
    mapping = {"data": "mnist", "model": {"width": 3}, "init": {"kind": "rewind", "of": {"data": {}}}, "extra": 1}
    with pytest.raises(OverrideError) as caught:
        spec_from_mapping(mapping)
    starts = {line.partition(";")[0].partition(": ")[0] for line in caught.value.problems}
    assert starts == {
        'data = "mnist"',
        "model.kind",
        "train",
        "init.of.model",
        "init.of.train",
        "init.of.data.name",
        "extra = 1",
    }


@pytest.mark.parametrize("value", [[], 5, None])
def test_a_spec_must_be_a_table(value: Any) -> None:
    with pytest.raises(OverrideError, match="run = .*; allowed: a table of data, model, train"):
        spec_from_mapping(value)


def test_explain_serves_other_models_and_shows_no_addresses() -> None:
    with pytest.raises(ValidationError) as caught:
        Study.model_validate({"name": "a", "designs": {"smoke": {"seeds": 3}}, "factr": "b"})
    lines = explain(caught.value, Study)
    assert any(line.startswith('factr = "b": no such field') and line.endswith("match: factor") for line in lines)
    assert not any("http" in line for line in lines)
