"""One run, from spec to store: same bits however it is carried out."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from overparam.foundations.json_values import number
from overparam.identity import digest_arrays, run_id
from overparam.models.risk import risk
from overparam.runs.attempt import Interrupted
from overparam.runs.checks import UnsupportedSpec
from overparam.runs.execute import execute, train
from overparam.runs.execution import Execution
from overparam.runs.run import Run, load_state, read
from overparam.runs.setting import Setting
from overparam.runs.store import Store, StoreError
from overparam.specs import CNN, MLP, SGD, Adam, DataSpec, Rewind, RunSpec, TrainSpec
from tests.support.small_runs import DATA, WILD, files, spec


def final_digest(run: Run) -> str:
    return str(run.result["states"][str(run.result["steps"])])


def test_train_gives_a_run_with_final_values_and_curves(tmp_path: Path) -> None:
    run = train(spec(), store=tmp_path)
    assert run.status == "ok"
    assert run.run_id == run_id(run.spec)
    assert 0.5 < run.train_accuracy <= 1.0
    assert 0.0 <= run.test_accuracy <= 1.0
    assert math.isnan(run.val_loss)
    assert run.curves["step"].to_list() == [7, 14, 21, 28]
    assert run.curves["test_accuracy"][-1] == run.test_accuracy
    assert run.weights("init").keys() == run.weights("final").keys() == run.weights(0).keys()


def test_a_run_gives_its_network_and_data_as_measures_take_them(tmp_path: Path) -> None:
    """The module has the run's own final risks, and what happens to both happens to copies."""
    run = train(spec(data=DATA.model_copy(update={"label_noise": 0.2, "num_val": 20})), store=tmp_path)
    model = run.model()
    assert not model.training
    for split in ("train", "val", "test"):
        found = risk(model, *run.data(split), "cross_entropy")
        assert found.loss == pytest.approx(getattr(run, f"{split}_loss"), rel=1e-6)
        assert found.accuracy == getattr(run, f"{split}_accuracy")
    torch.nn.init.zeros_(next(model.parameters()).data)
    for step in ("init", 14, "final"):
        assert all(torch.equal(value, run.weights(step)[name]) for name, value in run.model(step).named_parameters())
    before = [part.clone() for part in run.data()]
    for part in run.data():
        part.zero_()
    assert all(map(torch.equal, run.data(), before))
    with pytest.raises(ValueError, match='split = "tests"; allowed: train, val, test; nearest match: test'):
        run.data("tests")  # type: ignore[arg-type]


def test_settings_are_given_as_plain_values(tmp_path: Path) -> None:
    run = train(spec(), store=str(tmp_path / "runs"), data_dir=str(tmp_path), evaluations=2)
    assert (len(run.curves), run.curves["step"][-1]) == (2, 28)
    with pytest.raises(ValueError, match="threads = 2: train calls .* workers; pass workers=2"):
        train(spec(), store=tmp_path, threads=2)


def test_validation_examples_are_evaluated(tmp_path: Path) -> None:
    run = train(spec(data=DATA.model_copy(update={"num_val": 50})), store=tmp_path)
    assert 0.0 < run.val_accuracy <= 1.0


def test_same_spec_same_bits_and_seeds_and_streams_matter(tmp_path: Path) -> None:
    first, again = (train(spec(), store=tmp_path / name) for name in "ab")
    assert final_digest(first) == final_digest(again)
    others = [spec(seed=1), spec(streams={"order": 1}), spec(streams={"init": 1})]
    digests = {final_digest(train(other, store=tmp_path / "a")) for other in others}
    assert len(digests | {final_digest(first)}) == 4


def test_a_finished_run_is_not_computed_again(tmp_path: Path) -> None:
    first, before = train(spec(), store=tmp_path), files(tmp_path)
    setting = Setting(spec(), Execution(store=tmp_path))
    assert execute(setting).result == first.result
    assert files(tmp_path) == before
    assert "examples" not in vars(setting), "the data is not even prepared"


def test_a_finished_run_is_read_without_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that can only be read gives none."""

    def refuse(store: Store, identity: str) -> None:
        raise PermissionError(f"{store.root} can only be read")

    first = train(spec(), store=tmp_path)
    monkeypatch.setattr(Store, "lock", refuse)
    assert train(spec(), store=tmp_path).result == first.result
    with pytest.raises(PermissionError, match="can only be read"):
        execute(Setting(spec(), Execution(store=tmp_path)), frozenset({9}))


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_interrupted_and_resumed_is_uninterrupted(tmp_path: Path, stop_at: int) -> None:
    straight = execute(Setting(spec(), Execution(store=tmp_path / "straight")), frozenset({9}))
    calls = iter(range(100))
    execution = Execution(store=tmp_path / "broken")
    with pytest.raises(Interrupted, match="its checkpoint is kept"):
        execute(Setting(spec(), execution), frozenset({9}), lambda: next(calls) >= stop_at)
    assert not Store(execution.store).has(run_id(spec()))
    resumed = execute(Setting(spec(), execution), frozenset({9}))
    assert resumed.result["states"] == straight.result["states"]
    assert resumed.result["curves"] == straight.result["curves"]


SMALL = spec(model=MLP(width=8))


def test_checkpoint_of_another_environment_is_refused(tmp_path: Path) -> None:
    execution = Execution(store=tmp_path)
    with pytest.raises(Interrupted, match="its checkpoint is kept"):
        execute(Setting(SMALL, execution), should_stop=lambda: True)
    with pytest.raises(StoreError, match=r"another numeric environment \(threads 1 → 2\).*\(allow_mixed=True\)"):
        execute(Setting(SMALL, Execution(store=tmp_path, threads=2)))
    assert execute(Setting(SMALL, Execution(store=tmp_path, threads=2, allow_mixed=True))).status == "ok"


def test_a_checkpoint_of_another_processor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execution = Execution(store=tmp_path)
    processor = "overparam.foundations.environment.processor"
    monkeypatch.setattr(processor, lambda: "Intel 6/143/8 avx512")
    with pytest.raises(Interrupted, match="its checkpoint is kept"):
        execute(Setting(spec(), execution), should_stop=lambda: True)
    monkeypatch.setattr(processor, lambda: "AMD 25/1/1 avx2")
    with pytest.raises(StoreError, match=r"environment \(cpu Intel 6/143/8 avx512 → AMD 25/1/1 avx2\)"):
        execute(Setting(spec(), execution))
    monkeypatch.setattr(processor, lambda: None)  # not told, as in stores of earlier versions
    assert execute(Setting(spec(), execution)).result["mixed"] == []


def test_a_parent_of_another_environment_is_refused(tmp_path: Path) -> None:
    child = SMALL.model_copy(update={"init": Rewind(of=SMALL, step=7)})
    execute(Setting(SMALL, Execution(store=tmp_path)), frozenset({7}))
    with pytest.raises(StoreError, match=r"starts from was computed in another numeric environment"):
        execute(Setting(child, Execution(store=tmp_path, threads=2)))
    assert execute(Setting(child, Execution(store=tmp_path, threads=2, allow_mixed=True))).status == "ok"


def test_killed_in_the_middle_and_resumed_is_uninterrupted(tmp_path: Path) -> None:
    """kill -9 as soon as a checkpoint is there; the next process ends in the same bits."""
    long = spec(train=TrainSpec(optimizer=SGD(lr=0.01), batch_size=8, epochs=15))
    straight = execute(Setting(long, Execution(store=tmp_path / "straight")))
    code = (
        "import sys; import overparam as op; from overparam.runs.execute import execute; "
        "from overparam.runs.setting import Setting; "
        "spec = op.RunSpec.model_validate_json(sys.stdin.read()); "
        f"execute(Setting(spec, op.Execution(store={str(tmp_path / 'killed')!r}, checkpoint_seconds=0.0)))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(long.model_dump_json())
    process.stdin.close()
    store = Store(tmp_path / "killed")
    while store.checkpoint(run_id(long)) is None and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    found = store.checkpoint(run_id(long))
    assert found is not None and not store.has(run_id(long)), "the run was over before it could be killed"
    resumed = execute(Setting(long, Execution(store=store.root)))
    assert resumed.result["states"] == straight.result["states"]
    assert resumed.result["curves"] == straight.result["curves"]
    assert resumed.result["test_correct"] == straight.result["test_correct"]


def test_a_cache_hit_under_other_data_is_refused(tmp_path: Path) -> None:
    mine, home = spec(data=DataSpec(name="mine"), model=MLP(width=4)), tmp_path / "data" / "mine"
    home.mkdir(parents=True)
    write_images(home / "all.npz", seed=0)
    train(mine, store=tmp_path, data_dir=home.parent)
    write_images(home / "all.npz", seed=1)
    with pytest.raises(StoreError, match=r"was trained on mine data with digest.*\(data_dir=…\).*\(store=…\)"):
        train(mine, store=tmp_path, data_dir=home.parent)


def write_images(file: Path, seed: int) -> None:
    draws = np.random.default_rng(seed)
    x, y = draws.integers(0, 256, (40, 8, 8), np.uint8), np.arange(40) % 4
    np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y)


def test_an_unsaved_step_is_replayed_to_the_same_end(tmp_path: Path) -> None:
    execution = Execution(store=tmp_path / "later")
    execute(Setting(spec(), execution))
    asked = execute(Setting(spec(), Execution(store=tmp_path / "asked")), frozenset({9}))
    replayed = load_state(spec(), 9, execution)
    assert digest_arrays(replayed.arrays()) == asked.result["states"]["9"]
    assert Store(execution.store).steps(run_id(spec())) == {0, 9, 28}
    with pytest.raises(StoreError, match=r"steps 0 … 28; step 29 does not exist"):
        load_state(spec(), 29, execution)


def test_a_replay_that_ends_elsewhere_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execution = Execution(store=tmp_path)
    execute(Setting(spec(), execution))
    monkeypatch.setattr(Setting, "order", lambda self, epoch: torch.arange(200))
    with pytest.raises(StoreError, match="does not end in the stored weights"):
        load_state(spec(), 9, execution)


@pytest.mark.parametrize("step", [0, 9])
def test_rewinding_without_a_mask_is_the_dense_run(tmp_path: Path, step: int) -> None:
    rewound = train(spec(init=Rewind(of=spec(), step=step)), store=tmp_path)
    dense = train(spec(), store=tmp_path)
    assert final_digest(rewound) == final_digest(dense)
    assert digest_arrays(rewound.state("init").arrays()) == digest_arrays(dense.state(step).arrays())


@pytest.mark.parametrize("stop_at", range(1, 12))
def test_a_run_to_a_target_ends_in_the_same_bits_when_interrupted(tmp_path: Path, stop_at: int) -> None:
    """Also if states are kept at steps that are no looks at the loss: a checkpoint is made only at looks."""
    length = {"epochs": 40, "until_train_loss": 0.8, "schedule": "constant"}
    target = spec(model=MLP(width=16), train=TrainSpec(optimizer=SGD(lr=0.003), batch_size=4, **length))
    odd = frozenset(range(1, 400, 3))
    straight = execute(Setting(target, Execution(store=tmp_path / "straight")))
    calls = iter(range(1000))
    with pytest.raises(Interrupted, match="its checkpoint is kept"):
        execute(Setting(target, Execution(store=tmp_path / "broken")), odd, lambda: next(calls) >= stop_at)
    resumed = execute(Setting(target, Execution(store=tmp_path / "broken")))
    assert resumed.result["steps"] == straight.result["steps"]
    assert final_digest(resumed) == final_digest(straight)


def test_a_run_is_replayed_with_the_threads_it_was_trained_with(tmp_path: Path) -> None:
    """In a process of its own, whose torch starts with two threads."""
    wide = spec(model=CNN(channels=8), data=DataSpec(name="digits", num_train=400, num_test=100))
    train(wide, store=tmp_path)
    code = (
        "import sys, torch, overparam as op; spec = op.RunSpec.model_validate_json(sys.stdin.read()); "
        f"op.train(spec, store={str(tmp_path)!r}).weights(9); assert torch.get_num_threads() == 2"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code], input=wide.model_dump_json(), text=True, check=True, env=environment)


def test_a_mix_of_environments_is_recorded(tmp_path: Path) -> None:
    execution = Execution(store=tmp_path)
    with pytest.raises(Interrupted, match="its checkpoint is kept"):
        execute(Setting(SMALL, execution), should_stop=lambda: True)
    mixed = execute(Setting(SMALL, Execution(store=tmp_path, threads=2, allow_mixed=True)))
    assert mixed.result["mixed"] == ["threads 1 → 2"]
    longer = SMALL.model_copy(update={"init": Rewind(of=SMALL, step=28), "train": LONGER})
    assert execute(Setting(longer, Execution(store=tmp_path, threads=2))).result["mixed"] == ["threads 1 → 2"]
    assert train(SMALL.model_copy(update={"seed": 1}), store=tmp_path).result["mixed"] == []


LONGER = TrainSpec(optimizer=SGD(lr=0.05), batch_size=32, epochs=5)


def test_rewinding_needs_the_same_model_and_optimizer_and_something_left_to_train(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedSpec, match="init.of has the model"):
        train(spec(model=MLP(width=8), init=Rewind(of=spec(), step=7)), store=tmp_path)
    adam = TrainSpec(optimizer=Adam(lr=0.01), batch_size=32, epochs=4)
    with pytest.raises(UnsupportedSpec, match='trained with "sgd", whose state "adam" cannot take over'):
        train(spec(train=adam, init=Rewind(of=spec(), step=7)), store=tmp_path)
    with pytest.raises(ValueError, match="init.step = 28 leaves nothing to train; the run ends at step 28"):
        train(spec(init=Rewind(of=spec(), step=28)), store=tmp_path)


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="its checkpoint is kept"):
        execute(Setting(spec(), Execution(store=tmp_path)), should_stop=lambda: True)
    store = Store(tmp_path)
    found = store.checkpoint(run_id(spec()))
    assert found is not None
    store.save_checkpoint(run_id(spec()), found[0], found[1] | {"data_digest": "0" * 32})
    with pytest.raises(StoreError, match="was begun on digits data with digest 000000000000"):
        train(spec(), store=tmp_path)


def test_a_run_that_another_process_computes_can_be_left(tmp_path: Path) -> None:
    with Store(tmp_path).lock(run_id(spec())), pytest.raises(Interrupted, match="by another process"):
        execute(Setting(spec(), Execution(store=tmp_path)), should_stop=lambda: True)


def test_one_run_meets_several_targets(tmp_path: Path) -> None:
    target = TrainSpec(
        optimizer=SGD(lr=0.02), batch_size=32, epochs=60, until_train_loss=(0.5, 0.1), schedule="constant"
    )
    run = train(spec(model=MLP(width=16), train=target), store=tmp_path)
    assert run.status == "ok"
    assert run.result["targets_reached"] == [0.5, 0.1]
    assert abs(run.train_loss / 0.1 - 1) <= 0.1


def test_an_mlp_reaches_its_published_accuracy_on_mnist1d(tmp_path: Path) -> None:
    """The published 65–68 %, ± 1 for one seed; our recipe: two layers of 100, Adam .01, 6,000 steps of 100."""
    recipe = TrainSpec(optimizer=Adam(lr=0.01), batch_size=100, steps=6000, schedule="constant")
    run = train(RunSpec(data=DataSpec(name="mnist1d"), model=MLP(width=100, depth=3), train=recipe), store=tmp_path)
    assert 0.64 <= run.test_accuracy <= 0.69


def test_divergence_is_a_result(tmp_path: Path) -> None:
    run = train(spec(model=MLP(width=16), train=WILD), store=tmp_path)
    assert run.status == "diverged"
    assert run.result["diverged_at"] is not None
    assert math.isfinite(number(run.result["last_finite_loss"]))
    assert read(run.spec, Execution(store=tmp_path)).status == "diverged"
