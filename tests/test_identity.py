"""Identity: which changes of a spec change its id, and which do not. The pinned ids hold for ever."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from overparam.identity import Spec, canonical, canonical_json, run_id
from overparam.specs import (
    CNN,
    MLP,
    SGD,
    Adam,
    DataSpec,
    Fresh,
    Magnitude,
    RandomMask,
    Rewind,
    RunSpec,
    SameSigns,
    ShuffledMask,
    TrainSpec,
)
from overparam.specs.explain import specs_in


def dense(seed: int = 0) -> RunSpec:
    return RunSpec(
        data=DataSpec(name="mnist", num_train=10_000),
        model=MLP(width=32),
        train=TrainSpec(optimizer=SGD(lr=0.05), batch_size=128, epochs=60),
        seed=seed,
    )


def convolutional() -> RunSpec:
    return RunSpec(
        data=DataSpec(name="cifar10", num_train=2_000, num_val=500, label_noise=0.15, data_seed=3),
        model=CNN(channels=8, batch_norm=False),
        train=TrainSpec(
            optimizer=Adam(lr=1e-3), batch_size=64, steps=500, until_train_loss=(0.5, 0.05), schedule="constant"
        ),
        streams={"order": 7},
    )


def ticket(of: RunSpec) -> RunSpec:
    return of.model_copy(update={"init": Rewind(of=of, step=40), "mask": Magnitude(of=of, fraction=0.2)})


PINNED: list[tuple[RunSpec, str]] = [
    (dense(), "e86f401522a44baaff07d0a3acc5e149"),
    (convolutional(), "758a73f08dfcb403f8c38db2aed3d5ef"),
    (ticket(dense()), "8c57753ed3a0c26ff107c21f5631f6fc"),
    (ticket(ticket(dense())), "16d31ada93d9eacb60647b76ee8c6b37"),
    (dense().model_copy(update={"mask": RandomMask(fraction={"0.weight": 0.5})}), "01903e565ebaa731f2d1a71e2ac095bf"),
]


@pytest.mark.parametrize(("spec", "pinned"), PINNED)
def test_pinned_ids_survive_every_change(spec: RunSpec, pinned: str) -> None:
    assert run_id(spec) == pinned


# ---- every field enters -----------------------------------------------------------------------------------------


def other(value: Any) -> list[Any]:
    """Values next to a given one; validation picks those that a field allows."""
    match value:
        case bool():
            return [not value]
        case int() | float():
            return [value + 1, value / 2]
        case str():
            words = ["full", "first", "tanh", "ntk", "constant", "cosine", "mse", "global", "layer", "final"]
            return [word for word in words if word != value] + [value + "x"]
        case None:
            return [7, 0.5, "x"]
        case tuple() | list():
            return [[entry / 2 for entry in value], [*value, "first"]]
        case _:
            return [{**value, "extra": 1}, {**value, "order": 8}]


def leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and name not in ("streams", "fraction"):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


def changed(spec: RunSpec, path: tuple[str, ...], value: Any) -> RunSpec:
    tree = spec.model_dump()
    node = tree
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    if path[-1] in ("epochs", "steps"):
        node["steps" if path[-1] == "epochs" else "epochs"] = None
    return RunSpec.model_validate(tree)


def leaf_cases() -> Iterator[tuple[RunSpec, str]]:
    """Every field below specs that hold every part; a spec with a target loss allows but one schedule."""
    constant = changed(dense(), ("train", "schedule"), "constant")
    thinned = constant.model_copy(update={"mask": RandomMask(fraction=0.5)})
    start, mask = SameSigns(of=constant, step=3), ShuffledMask(of=thinned, stream="shuffle")
    shuffled = constant.model_copy(update={"init": start, "mask": mask})
    for spec in (constant, convolutional(), ticket(constant), thinned, shuffled):
        for path, _ in leaves(spec.model_dump()):
            if path[-1] != "kind" and not (path[-1] == "schedule" and spec.train.until_train_loss):
                yield spec, ".".join(path)


@pytest.mark.parametrize(("spec", "dotted"), list(leaf_cases()))
def test_changing_any_field_changes_the_id(spec: RunSpec, dotted: str) -> None:
    path = tuple(dotted.split("."))
    variants = []
    for candidate in other(dict(leaves(spec.model_dump()))[path]):
        with contextlib.suppress(ValueError):
            variants.append(changed(spec, path, candidate))
    variants = [variant for variant in variants if variant != spec]
    assert variants, f"no other value of {dotted} is valid: extend `other`"
    assert run_id(spec) not in {run_id(variant) for variant in variants}


def test_every_field_of_every_part_of_a_run_is_covered() -> None:
    """By the part that has it: a name that two parts share counts for each alone. Parents enter by their id."""
    covered = {(owner(spec, dotted), dotted.split(".")[-1]) for spec, dotted in leaf_cases()}
    nested = {"data", "model", "train", "optimizer", "init", "mask", "kind", "of"}
    parts = parts_of_a_run()
    assert parts >= {MLP, CNN, SGD, Adam, Fresh, Rewind, SameSigns, Magnitude, RandomMask, ShuffledMask}
    assert {(part, name) for part in parts for name in part.model_fields if name not in nested} <= covered


def owner(spec: RunSpec, dotted: str) -> type[BaseModel]:
    """The part that has the field at a path."""
    node: Any = spec
    for name in dotted.split(".")[:-1]:
        node = getattr(node, name)
    assert isinstance(node, BaseModel)
    return type(node)


def parts_of_a_run() -> set[type[BaseModel]]:
    found: set[type[BaseModel]] = set()
    waiting: list[type[BaseModel]] = [RunSpec]
    while waiting:
        part = waiting.pop()
        if part not in found:
            found.add(part)
            waiting += [each for field in part.model_fields.values() for each in specs_in(field.annotation)]
    return found


def test_kinds_with_the_same_fields_have_other_ids() -> None:
    sgd = dense().model_dump()
    adam = json.loads(json.dumps(sgd))
    adam["train"]["optimizer"] = {"kind": "adam", "lr": 0.05}
    assert run_id(RunSpec.model_validate(sgd)) != run_id(RunSpec.model_validate(adam))


# ---- what does not enter ----------------------------------------------------------------------------------------


def test_spelling_of_numbers_and_order_of_keys_do_not_matter() -> None:
    tree = dense().model_dump()
    tree["data"]["label_noise"] = 0
    tree["model"]["width"] = 32.0
    tree["train"]["optimizer"]["momentum"] = "0.90"
    reordered = {name: tree[name] for name in reversed(tree)}
    assert run_id(RunSpec.model_validate(reordered)) == run_id(dense())


def test_order_of_streams_does_not_matter() -> None:
    one = dense().model_copy(update={"streams": {"order": 1, "init": 2}})
    two = dense().model_copy(update={"streams": {"init": 2, "order": 1}})
    assert run_id(one) == run_id(two)


def test_tuples_and_lists_are_equal() -> None:
    assert canonical_json((1, (2.0,))) == canonical_json([1, [2.0]]) == "[1,[2.0]]"


@pytest.mark.parametrize(("name", "num_train", "pool"), [("mnist", 500, 500), ("digits", None, 1297)])
def test_batches_of_at_least_all_examples_are_full(name: str, num_train: int | None, pool: int) -> None:
    def spec(batch_size: Any) -> RunSpec:
        train = TrainSpec(optimizer=SGD(lr=0.1), batch_size=batch_size, epochs=1)
        return RunSpec(data=DataSpec(name=name, num_train=num_train), model=MLP(width=4), train=train)

    assert spec(pool).train.batch_size == spec(pool + 1).train.batch_size == "full"
    assert run_id(spec(pool)) == run_id(spec(10 * pool)) == run_id(spec("full"))
    assert run_id(spec(pool - 1)) != run_id(spec("full"))


def test_full_batch_counts_validation_examples_out() -> None:
    train = TrainSpec(optimizer=SGD(lr=0.1), batch_size=1_197, epochs=1)
    spec = RunSpec(data=DataSpec(name="digits", num_val=100), model=MLP(width=4), train=train)
    assert spec.train.batch_size == "full"


# ---- neutral values, semantics, parents -------------------------------------------------------------------------


class First(Spec):
    width: int


class Grown(Spec):
    neutral: ClassVar[Mapping[str, Any]] = {"gain": 1.0}

    width: int
    gain: float = 2.0  # the default has moved on; the neutral value stays


class Bumped(Spec):
    semantics: ClassVar[int] = 2

    width: int


def test_added_field_keeps_old_ids_at_its_neutral_value() -> None:
    assert run_id(Grown(width=3, gain=1.0)) == run_id(First(width=3))


def test_added_field_enters_away_from_its_neutral_value_even_as_default() -> None:
    assert len({run_id(First(width=3)), run_id(Grown(width=3)), run_id(Grown(width=3, gain=3.0))}) == 3


def test_semantics_enter() -> None:
    assert run_id(Bumped(width=3)) != run_id(First(width=3))


def test_parents_enter_by_their_id() -> None:
    inner = canonical(ticket(dense()))
    assert inner["init"]["of"] == inner["mask"]["of"] == {"run": run_id(dense())}


def test_change_of_a_grandparent_changes_the_id() -> None:
    assert run_id(ticket(ticket(dense(seed=1)))) != run_id(
        ticket(ticket(dense())).model_copy(update={"seed": 1}),
    )


def test_long_chains_cost_one_level_of_text() -> None:
    chain = list(itertools.accumulate(range(6), lambda spec, _: ticket(spec), initial=dense()))
    assert len(canonical_json(chain[-1])) == len(canonical_json(chain[1]))


def test_only_plain_values_can_be_hashed() -> None:
    with pytest.raises(TypeError, match="cannot hash a set"):
        canonical({1, 2})


# ---- round trip -------------------------------------------------------------------------------------------------

finite = st.floats(min_value=1e-12, max_value=1e6)
optimizers = st.one_of(
    st.builds(SGD, lr=finite, momentum=st.floats(0.0, 0.99), weight_decay=st.floats(0.0, 1.0)),
    st.builds(Adam, lr=finite),
)
models = st.one_of(
    st.builds(MLP, width=st.integers(1, 4096), depth=st.integers(1, 9)),
    st.builds(MLP, width=st.lists(st.integers(1, 300), min_size=1, max_size=4).map(tuple)),
    st.builds(CNN, channels=st.integers(1, 64), batch_norm=st.booleans()),
)
specs = st.builds(
    RunSpec,
    data=st.builds(DataSpec, name=st.sampled_from(["digits", "mnist"]), label_noise=st.floats(0.0, 1.0)),
    model=models,
    train=st.builds(
        TrainSpec, optimizer=optimizers, batch_size=st.integers(1, 10_000), epochs=st.integers(1, 99), steps=st.none()
    ),
    init=st.builds(Fresh, stream=st.sampled_from(["init", "other"])),
    seed=st.integers(0, 2**40),
    streams=st.dictionaries(st.sampled_from(["order", "init"]), st.integers(0, 99)),
)


@settings(deadline=None, max_examples=60)
@given(spec=specs, parent=st.booleans())
def test_json_round_trip_keeps_spec_and_id(spec: RunSpec, parent: bool) -> None:
    spec = ticket(spec) if parent else spec
    again = RunSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert run_id(again) == run_id(spec)
    assert hash(again) == hash(spec)


def test_id_is_32_hexadecimal_digits() -> None:
    assert len(run_id(dense())) == 32
    assert int(run_id(dense()), 16) >= 0
