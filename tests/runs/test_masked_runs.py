"""Runs under masks: where they start, what stays zero, and that pruning nothing changes nothing."""

import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call

from overparam.foundations.torch_generators import torch_generator
from overparam.identity import run_id
from overparam.models.masks import density, masked, shuffled_mask
from overparam.runs import run as runs
from overparam.runs.attempt import Interrupted
from overparam.runs.checks import UnsupportedSpec
from overparam.runs.execute import execute, train
from overparam.runs.execution import Execution
from overparam.runs.run import Run
from overparam.runs.setting import Setting
from overparam.runs.store import Store, StoreError
from overparam.runs.training import loop
from overparam.runs.training.gradients import Gradient, gradient_of
from overparam.runs.training.pruning import MaskBroken, thinned
from overparam.runs.training.state import State, restore
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

DATA = DataSpec(name="digits", num_train=200, num_test=100)
SIGNALS = DataSpec(name="mnist1d", num_train=200, num_test=100)
RANDOM = RandomMask(fraction=0.5)
MOMENTUM = TrainSpec(optimizer=SGD(lr=0.05, weight_decay=1e-3), batch_size=32, epochs=4)
ADAM = TrainSpec(optimizer=Adam(lr=2e-3), batch_size=32, epochs=4, schedule="constant")
KINDS = [(CNN(channels=2), MOMENTUM), (CNN(channels=2), ADAM), (MLP(width=(24, 12)), MOMENTUM), (MLP(width=8), ADAM)]


def spec(**fields: Any) -> RunSpec:
    return RunSpec.model_validate({"data": DATA, "model": MLP(width=(24, 12)), "train": MOMENTUM} | fields)


def ticket(of: RunSpec, dense: RunSpec | None = None, step: int = 0, **mask: Any) -> RunSpec:
    """One round of iterative magnitude pruning on top of `of`, rewound to the dense run."""
    start = Rewind(of=of if dense is None else dense, step=step)
    return of.model_copy(update={"init": start, "mask": Magnitude(of=of, **({"fraction": 0.2} | mask))})


def rounds(dense: RunSpec, count: int) -> list[RunSpec]:
    found = [dense]
    for _ in range(count):
        found.append(ticket(found[-1], dense))
    return found


def mask_of(run: Run) -> dict[str, torch.Tensor]:
    return run.state("final").mask


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    """In every bit: +0 and −0 differ."""
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[k].view(torch.int32), theirs[k].view(torch.int32)) for k in ours
    )


@pytest.mark.parametrize("step", [0, 9])
@pytest.mark.parametrize(("model", "recipe"), KINDS)
def test_pruning_nothing_is_the_dense_run_bit_for_bit(
    tmp_path: Path, model: MLP | CNN, recipe: TrainSpec, step: int
) -> None:
    dense = spec(model=model, train=recipe)
    whole, again = train(dense, store=tmp_path), train(ticket(dense, step=step, fraction=0.0), store=tmp_path)
    assert density(mask_of(again)) == 1.0
    ours, theirs = again.state("final"), whole.state("final")
    assert same(ours.weights, theirs.weights) and same(ours.optimizer, theirs.optimizer)
    assert all(torch.equal(ours.buffers[name], theirs.buffers[name]) for name in theirs.buffers)
    assert again.curves["test_loss"][-1] == whole.curves["test_loss"][-1]


@pytest.mark.parametrize("step", [0, 9])
@pytest.mark.parametrize(("model", "recipe"), KINDS)
def test_a_ticket_starts_at_the_masked_state_and_keeps_its_zeros(
    tmp_path: Path, model: MLP | CNN, recipe: TrainSpec, step: int
) -> None:
    """A slot of the optimizer that is not masked moves a pruned weight although its gradient is zero."""
    dense = spec(model=model, train=recipe)
    run, whole = train(ticket(dense, step=step, fraction=0.7), store=tmp_path), train(dense, store=tmp_path)
    mask, start, end = mask_of(run), run.state("init"), run.state("final")
    assert same(start.weights, masked(whole.state(step).weights, mask))
    assert start.step == step and all(torch.equal(start.buffers[k], v) for k, v in whole.state(step).buffers.items())
    for name, kept in mask.items():
        assert not end.weights[name][~kept].any() and end.weights[name][kept].all()
        slots = [slot for key, slot in end.optimizer.items() if key.startswith(f"{name}/") and slot.dim()]
        assert slots and not any(slot[~kept].any() for slot in slots)
    assert all(end.weights[name].any() for name in end.weights), "biases and batch norm train on"


def test_rounds_are_nested_and_remove_exactly_the_rounded_share(tmp_path: Path) -> None:
    chain = [train(each, store=tmp_path) for each in rounds(spec(), 4)]
    left = sum(w.numel() for w in chain[0].weights().values() if w.dim() >= 2)
    before = {name: torch.ones_like(w, dtype=torch.bool) for name, w in chain[0].weights().items() if w.dim() >= 2}
    for previous, run in pairwise(chain):
        mask, trained = mask_of(run), previous.weights()
        left -= round(0.2 * left)
        assert sum(int(kept.sum()) for kept in mask.values()) == left
        assert not any((kept & ~before[name]).any() for name, kept in mask.items())
        smallest_kept = min(float(trained[name][kept].abs().min()) for name, kept in mask.items())
        gone = [trained[name][before[name] & ~kept].abs() for name, kept in mask.items()]
        assert max(float(each.max()) for each in gone if each.numel()) <= smallest_kept
        before = mask


def test_rates_by_layer_and_spared_layers(tmp_path: Path) -> None:
    dense = spec()
    by_layer = mask_of(train(ticket(dense, fraction={"rest": 0.5, "last": 0.1}, scope="layer"), store=tmp_path))
    pruned = {name: int((~kept).sum()) for name, kept in by_layer.items()}
    assert pruned == {"1.weight": 64 * 24 // 2, "3.weight": 24 * 12 // 2, "5.weight": 12}
    spared = mask_of(train(ticket(dense, fraction=0.5, spare=("first", "last")), store=tmp_path))
    assert {name: float(kept.float().mean()) for name, kept in spared.items()} == {
        "1.weight": 1.0,
        "3.weight": 0.5,
        "5.weight": 1.0,
    }
    random = RandomMask(fraction=0.5, scope="global", spare=("last",))
    drawn = mask_of(train(spec(mask=random), store=tmp_path))
    assert drawn["5.weight"].all() and density(drawn) == pytest.approx((912 + 120) / 1944)


@pytest.mark.parametrize("model", [MLP(width=(24, 12)), CNN(channels=2)])
def test_the_masked_gradient_is_that_of_the_thin_network(tmp_path: Path, model: MLP | CNN) -> None:
    """The thin network is a function of its kept weights alone; autograd differentiates in those."""
    run = train(ticket(spec(model=model), fraction=0.6), store=tmp_path)
    setting, state = Setting(run.spec, run.execution), run.state("init")
    net, (x, y) = setting.model(), setting.train
    net.load_state_dict({**state.weights, **state.buffers})
    thinned(gradient_of(net, run.spec.train), net, state.mask)(x, y)
    thin = {n: (w[state.mask[n]] if n in state.mask else w).clone().requires_grad_() for n, w in state.weights.items()}
    full = {
        n: torch.zeros_like(state.weights[n]).masked_scatter(state.mask[n], v) if n in state.mask else v
        for n, v in thin.items()
    }
    loss = torch.nn.functional.cross_entropy(functional_call(net, full, (x,)), y)
    for name, grad in zip(thin, torch.autograd.grad(loss, list(thin.values())), strict=True):
        ours = net.get_parameter(name).grad
        assert ours is not None
        assert not ours[~state.mask[name]].any() if name in state.mask else True
        torch.testing.assert_close(ours[state.mask[name]] if name in state.mask else ours, grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("recipe", [MOMENTUM, ADAM])
def test_a_weight_that_grows_back_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: TrainSpec
) -> None:
    def unthinned(gradient: Gradient, net: object, mask: object) -> Gradient:
        return gradient

    execute(Setting(spec(train=recipe), Execution(store=tmp_path)))
    monkeypatch.setattr(loop, "thinned", unthinned)
    with pytest.raises(MaskBroken, match="has a non-zero weight where its mask prunes"):
        train(ticket(spec(train=recipe)), store=tmp_path)


def test_learning_rate_rewinding_keeps_the_trained_weights(tmp_path: Path) -> None:
    dense = train(spec(), store=tmp_path)
    start = Rewind(of=spec(), step=9, weights="final")
    run = train(spec(init=start, mask=Magnitude(of=spec(), fraction=0.5)), store=tmp_path)
    begin, end = run.state("init"), dense.state("final")
    assert begin.step == 9 and same(begin.weights, masked(end.weights, begin.mask))
    assert run.curves["step"][-1] == dense.curves["step"][-1]
    assert run.state("final").weights["1.weight"].abs().sum() != end.weights["1.weight"].abs().sum()


def test_controls_share_with_the_ticket_what_they_should(tmp_path: Path) -> None:
    dense, mask = spec(), Magnitude(of=spec(), fraction=0.5)
    own = train(ticket(dense, fraction=0.5), store=tmp_path)
    fresh = train(spec(init=Fresh(stream="reinit"), mask=mask), store=tmp_path)
    signed = train(spec(init=SameSigns(of=dense), mask=mask), store=tmp_path)
    moved = train(spec(init=Rewind(of=dense), mask=ShuffledMask(of=own.spec)), store=tmp_path)
    theta, kept = train(dense, store=tmp_path).weights("init"), mask_of(own)
    assert all(torch.equal(mask_of(run)[n], kept[n]) for run in (fresh, signed) for n in kept)
    redrawn, resigned = fresh.weights("init"), signed.weights("init")
    for name, where in kept.items():
        drawn, first = redrawn[name][where], theta[name][where]
        assert torch.equal(drawn.abs(), resigned[name][where].abs()), "one stream, one draw"
        assert torch.equal(resigned[name][where].sign(), first.sign()) and not torch.equal(drawn.sign(), first.sign())
        assert int(mask_of(moved)[name].sum()) == int(where.sum()) and not torch.equal(mask_of(moved)[name], where)
        assert same({name: moved.weights("init")[name]}, masked({name: theta[name]}, {name: mask_of(moved)[name]}))
    again = shuffled_mask(
        {name: kept[name] for name in ("1.weight", "3.weight", "5.weight")}, generator=torch_generator(0, "mask")
    )
    assert all(torch.equal(mask_of(moved)[name], again[name]) for name in kept)


def test_seeds_and_streams_move_random_masks(tmp_path: Path) -> None:
    masks = [
        mask_of(train(spec(mask=RandomMask(fraction=0.5, scope=scope), **other), store=tmp_path))["1.weight"]
        for scope in ("layer", "erdos_renyi")
        for other in ({}, {"seed": 1}, {"streams": {"mask": 2}})
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])


def test_interrupted_and_resumed_is_uninterrupted(tmp_path: Path) -> None:
    child = ticket(spec(), fraction=0.5)
    straight = execute(Setting(child, Execution(store=tmp_path / "straight")), frozenset({9}))
    execution, calls = Execution(store=tmp_path / "broken"), iter(range(100))
    execute(Setting(spec(), execution))
    with pytest.raises(Interrupted, match="its checkpoint is kept"):
        execute(Setting(child, execution), frozenset({9}), lambda: next(calls) >= 2)
    assert execute(Setting(child, execution), frozenset({9})).result["states"] == straight.result["states"]
    run = execute(Setting(child, Execution(store=tmp_path / "later")))
    assert "9" not in run.result["states"] and run.state(9).mask, "a replayed state holds its mask"
    assert runs.read(child, run.execution).result["states"] == straight.result["states"]


def written(store: Store) -> dict[str, int]:
    """Finished runs and when their results were written."""
    return {file.parent.name: file.stat().st_mtime_ns for file in store.root.glob("runs/*/*/result.json")}


def test_stopped_in_round_two_goes_on_in_round_two(tmp_path: Path) -> None:
    """Rounds 0 and 1 are read, not trained again."""
    chain, execution = rounds(spec(), 3), Execution(store=tmp_path / "stopped")
    store, second = Store(execution.store), run_id(rounds(spec(), 2)[-1])
    straight = execute(Setting(chain[-1], Execution(store=tmp_path / "straight")))
    begun = iter([False, True])
    with pytest.raises(Interrupted, match="its checkpoint is kept"):
        execute(Setting(chain[-1], execution), should_stop=lambda: store.has(run_id(chain[1])) and next(begun, True))
    before = written(store)
    assert store.checkpoint(second) is not None and before.keys() == {run_id(each) for each in chain[:2]}
    resumed, after = execute(Setting(chain[-1], execution)), written(store)
    assert {identity: after[identity] for identity in before} == before, "rounds 0 and 1 were read"
    assert resumed.result["states"] == straight.result["states"]


@pytest.mark.slow
def test_killed_in_round_seven_goes_on_in_round_seven(tmp_path: Path) -> None:
    """kill -9 as soon as round 7 has a checkpoint; rounds 0 … 6 are read, not trained again."""
    long = TrainSpec(optimizer=SGD(lr=0.01), batch_size=8, epochs=12)
    chain = rounds(spec(train=long), 8)
    straight = execute(Setting(chain[-1], Execution(store=tmp_path / "straight")))
    code = (
        "import sys; import overparam as op; from overparam.runs.execute import execute; "
        "from overparam.runs.setting import Setting; "
        "spec = op.RunSpec.model_validate_json(sys.stdin.read()); "
        f"execute(Setting(spec, op.Execution(store={str(tmp_path / 'killed')!r}, checkpoint_seconds=0.0)))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(chain[-1].model_dump_json())
    process.stdin.close()
    store, seventh = Store(tmp_path / "killed"), run_id(chain[7])
    while store.checkpoint(seventh) is None and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = set(store.run_ids())
    assert store.checkpoint(seventh) is not None, "the run was over before it could be killed"
    assert done == {run_id(each) for each in chain[:7]}
    before = written(store)
    resumed = execute(Setting(chain[-1], Execution(store=store.root)))
    after = written(store)
    assert {identity: after[identity] for identity in before} == before, "rounds 0 … 6 were read"
    assert after.keys() - before.keys() == {seventh, run_id(chain[8])}
    assert resumed.result["states"] == straight.result["states"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask": ShuffledMask(of=spec())}, "dense run, which has no mask to shuffle"),
        ({"mask": ShuffledMask(of=spec(mask=RANDOM))}, "has drawn the random mask behind mask.of"),
        ({"mask": ShuffledMask(of=ticket(spec(mask=RANDOM)))}, "has drawn the random mask behind mask.of"),
        (
            {"mask": ShuffledMask(of=spec(mask=RANDOM, streams={"order": 3}))},
            'give ShuffledMask another stream, such as stream="shuffle", or set streams.mask of this run',
        ),
        ({"init": Rewind(of=spec(data=SIGNALS))}, "init.of has the data mnist1d .* weights of other shapes"),
        ({"init": SameSigns(of=spec(data=SIGNALS))}, r"inputs of shape \(40,\), 10 classes\), but this run digits"),
        ({"mask": Magnitude(of=spec(data=SIGNALS), fraction=0.5)}, "mask.of has the data mnist1d"),
        ({"mask": Magnitude(of=spec(model=MLP(width=8)), fraction=0.5)}, "mask.of has the model"),
        ({"init": SameSigns(of=spec(model=MLP(width=8)))}, "init.of has the model"),
        (
            {"mask": RandomMask(fraction=0.5), "train": MOMENTUM.model_copy(update={"linearize": True})},
            "with train.linearize or train.lazy_scale is not trained",
        ),
        (
            {"init": SameSigns(of=spec()), "train": MOMENTUM.model_copy(update={"lazy_scale": 2.0})},
            'init kind "same_signs" with train.linearize',
        ),
    ],
)
def test_what_cannot_be_trained_is_said_before_training(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedSpec, match=message):
        train(spec(**fields), store=tmp_path)
    assert not list(Store(tmp_path).run_ids())


@pytest.mark.parametrize("kind", [Rewind, SameSigns])
def test_without_data_to_compare_a_state_of_other_shapes_is_not_loaded(
    tmp_path: Path, kind: type[Rewind] | type[SameSigns]
) -> None:
    """The parent's data was there when it was trained, and is gone now."""
    parent, home = spec(data=DataSpec(name="mine")), tmp_path / "data" / "mine"
    home.mkdir(parents=True)
    labels = np.arange(100) % 10
    signals = np.linspace(0, 1, 4000, dtype=np.float32).reshape(100, 40)
    np.savez(home / "all.npz", x_train=signals, y_train=labels, x_test=signals, y_test=labels)
    train(parent, store=tmp_path / "runs", data_dir=home.parent)
    shutil.rmtree(home)
    with pytest.raises(ValueError, match=r"1\.weight has shape \(24, 40\) in the stored state, but \(24, 64\) in this"):
        train(spec(init=kind(of=parent)), store=tmp_path / "runs", data_dir=home.parent)


def test_a_state_of_another_shape_is_not_broadcast() -> None:
    net = torch.nn.Linear(3, 2)
    state = State(0, {"weight": torch.ones(1, 3), "bias": torch.ones(2)}, {}, {})
    with pytest.raises(ValueError, match=r"weight has shape \(1, 3\) in the stored state, but \(2, 3\) in this"):
        restore(state, net, torch.optim.SGD(net.parameters(), lr=0.1))


def test_other_data_of_the_same_shape_may_be_gone_on_with(tmp_path: Path) -> None:
    noisy = spec(data=DATA.model_copy(update={"label_noise": 0.2}))
    assert train(spec(init=Rewind(of=noisy, step=7)), store=tmp_path).status == "ok"


def test_a_random_mask_is_shuffled_by_another_draw(tmp_path: Path) -> None:
    """The draw that made it would bring all that is pruned to the first rows."""
    of = spec(mask=RANDOM)
    kept = mask_of(train(of, store=tmp_path))
    others: tuple[dict[str, Any], ...] = (
        {"mask": ShuffledMask(of=of, stream="shuffle")},
        {"mask": ShuffledMask(of=of), "seed": 1},
    )
    for other in others:
        moved = mask_of(train(spec(**other), store=tmp_path))
        assert all(int(moved[name].sum()) == int(kept[name].sum()) for name in kept)
        assert not torch.equal(moved["1.weight"], kept["1.weight"]) and moved["1.weight"].any(1).all()


@pytest.mark.parametrize(
    "of",
    [
        spec(mask=RandomMask(fraction=0.5, scope="global")),
        spec(mask=RandomMask(fraction=0.5, spare=("first",))),
        spec(mask=ShuffledMask(of=spec(mask=RANDOM), stream="shuffle")),
    ],
    ids=["one draw over all layers", "first layer spared", "shuffled by another draw between"],
)
def test_masks_that_the_same_stream_may_shuffle(of: RunSpec, tmp_path: Path) -> None:
    """The permutations are not those of the first draw: no row is cut off whole."""
    moved = mask_of(train(spec(mask=ShuffledMask(of=of)), store=tmp_path))
    assert all(kept.any(1).all() for kept in moved.values())


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"fraction": {"3.wieght": 0.5}, "scope": "layer"}, r"3\.wieght"),
        ({"spare": ("fist",)}, "fist"),
        ({"spare": ("rest",)}, "leaves no layer to prune"),
    ],
)
def test_a_layer_that_is_not_there_is_named_before_training(tmp_path: Path, mask: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(ticket(spec(), **mask), store=tmp_path)
    assert not list(Store(tmp_path).run_ids())


def test_a_table_of_fractions_needs_no_spare() -> None:
    with pytest.raises(ValueError, match="drop spare"):
        Magnitude(of=spec(), fraction={"rest": 0.5}, scope="layer", spare=("last",))
    with pytest.raises(ValueError, match='needs scope="layer"'):
        Magnitude(of=spec(), fraction={"rest": 0.5})


@pytest.mark.parametrize("step", [0, 20])
def test_nothing_starts_from_a_run_that_diverged(tmp_path: Path, step: int) -> None:
    wild = spec(train=TrainSpec(optimizer=SGD(lr=1e6), batch_size=32, epochs=4))
    with pytest.raises(UnsupportedSpec, match="diverged at step"):
        train(ticket(wild, step=step), store=tmp_path)


def test_a_ticket_that_diverges_is_a_result(tmp_path: Path) -> None:
    wild = ticket(spec()).model_copy(update={"train": TrainSpec(optimizer=SGD(lr=1e6), batch_size=32, epochs=4)})
    assert train(wild, store=tmp_path).status == "diverged"


def test_a_mask_from_another_environment_is_refused(tmp_path: Path) -> None:
    execute(Setting(spec(), Execution(store=tmp_path)))
    child = spec(mask=Magnitude(of=spec(), fraction=0.5))
    with pytest.raises(StoreError, match="starts from was computed in another numeric environment"):
        execute(Setting(child, Execution(store=tmp_path, threads=2)))
