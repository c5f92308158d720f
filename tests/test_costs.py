"""Budgets of the presets, at the throughput measured on the reference machine, and the probes themselves."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from overparam import costs, paths
from overparam.costs import CostModel, Throughput, disk_bytes, probe
from overparam.execute import execute
from overparam.execution import Execution
from overparam.experiments import Experiment, experiment
from overparam.identity import run_id
from overparam.laboratory import cost_of, plan_of
from overparam.models.build import count_parameters
from overparam.specs import CNN, MLP, SGD, DataSpec, RunSpec, TrainSpec
from overparam.specs.run import KNOWN_NUM_TRAIN
from overparam.studies import STUDIES
from overparam.training.timetable import Timetable

# Reference machine: 2 cores (x86_64, AVX-512), torch 2.13.0, one thread per worker, both cores busy. Images per second
# of one core while training the CNN of 8 and of 4 channels on 32×32 and 8×8 images, and seconds per step of the MLP
# of width 32 on digits.
CNN_IMAGES = {"cifar10": 3_800.0, "digits": 14_000.0}
MLP_STEP = {8: 0.00035, 32: 0.00037, 128: 0.0006, 500: 0.0008, 1297: 0.0013}
MLP_OVERHEAD, MLP_FLOPS = 0.0004, 60e9  # of a step of any other MLP: seconds, and FLOPs per second of one core
EVALUATED = {("cnn", "cifar10"): 1 / 8_500, ("cnn", "digits"): 1 / 60_000, ("mlp", "digits"): 1 / 500_000}
NUM_TEST = {"digits": 500, "cifar10": 10_000, "mnist": 10_000}
INPUTS = {"digits": (8, 8), "mnist": (28, 28), "mnist1d": (40,)}


def reference(spec: RunSpec, num_train: int) -> Throughput:
    batch_size = Timetable(spec.train, num_train).batch_size
    if isinstance(spec.model, CNN):
        return Throughput(batch_size / CNN_IMAGES[spec.data.name], EVALUATED["cnn", spec.data.name])
    if spec.model == MLP(width=32) and spec.data.name == "digits":
        return Throughput(MLP_STEP[batch_size], EVALUATED["mlp", "digits"])
    passes = 8 if spec.train.lazy_scale else 6  # FLOPs per weight and example; a lazy network runs forward twice
    weights = count_parameters(spec.model, INPUTS[spec.data.name], 10)
    return Throughput(MLP_OVERHEAD + passes * weights * batch_size / MLP_FLOPS, 1 / 500_000 + 2 * weights / MLP_FLOPS)


def fake_examples(spec: DataSpec, data_dir: Path | None) -> SimpleNamespace:
    num_train = spec.num_train or KNOWN_NUM_TRAIN[spec.name]
    splits = {"train": num_train, "val": 0, "test": spec.num_test or NUM_TEST[spec.name]}
    return SimpleNamespace(**{name: SimpleNamespace(y=np.empty(size)) for name, size in splits.items()})


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("preset", ["smoke", "laptop"])
def test_a_preset_stays_inside_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: str, preset: str
) -> None:
    monkeypatch.setattr(costs, "prepare", fake_examples)
    monkeypatch.setattr(CostModel, "throughput", lambda self, spec, num_train: reference(spec, num_train))
    items = [experiment(name, preset) for name in STUDIES]  # type: ignore[arg-type]
    place = list(STUDIES).index(study)
    total = cost_together(items[: place + 1], tmp_path) - cost_together(items[:place], tmp_path)
    budget = items[place].design.budget_core_seconds
    assert budget is not None
    assert 0.3 * budget < total <= budget


def cost_together(items: list[Experiment], store: Path) -> float:
    """Core-seconds of several studies in an empty store; what they share is counted once."""
    execution = Execution(store=store)
    return sum(cost_of(plan_of(items, execution), items, CostModel(execution, workers=1)).values())


def spec(**train: object) -> RunSpec:
    length = {"optimizer": SGD(lr=0.05), "batch_size": 32, "epochs": 20} | train
    data = DataSpec(name="digits", num_train=320)
    return RunSpec(data=data, model=MLP(width=32), train=TrainSpec.model_validate(length))


def test_probes_are_positive_kept_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "PROBE_SECONDS", 0.01)
    model = CostModel(Execution(store=tmp_path), workers=1)
    first = model.seconds(spec())
    assert first > 0
    model.save()
    monkeypatch.setattr(costs, "probe", None)
    assert CostModel(Execution(store=tmp_path), workers=1).seconds(spec()) == first


@pytest.mark.parametrize("content", ["{", "[1]", '{"key": {"other": 1}}'])
def test_damaged_costs_count_as_none(tmp_path: Path, content: str) -> None:
    paths.costs_file(tmp_path).write_text(content)
    assert CostModel(Execution(store=tmp_path), workers=1).known == {}


def test_a_run_that_will_diverge_has_a_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "PROBE_SECONDS", 0.01)
    assert probe(spec(optimizer=SGD(lr=1e8)), Execution(store=tmp_path)).step > 0


def test_costs_grow_with_steps_share_and_looks_at_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CostModel, "throughput", lambda self, spec, num_train: Throughput(0.01, 0.001))
    model = CostModel(Execution(store=tmp_path, evaluations=2), workers=1)
    fixed, evaluated = costs.FIXED_SECONDS, 2 * 820 * 0.001
    assert model.seconds(spec()) == pytest.approx(fixed + 200 * 0.01 + evaluated)
    assert model.seconds(spec(), share=0.5) == pytest.approx(fixed + 100 * 0.01 + evaluated)
    target = spec(until_train_loss=0.1, schedule="constant")
    assert model.seconds(target) == pytest.approx(fixed + 200 * 0.01 + evaluated + costs.LOOKS * 320 * 0.001)


def test_a_probe_leaves_the_run_as_it_is(tmp_path: Path) -> None:
    execution = Execution(store=tmp_path / "a")
    probe(spec(), execution)
    assert not (tmp_path / "a").exists()
    probed = execute(spec(), execution).result["states"]
    assert probed == execute(spec(), Execution(store=tmp_path / "b")).result["states"]


def test_disk_estimate_is_near_what_a_run_takes(tmp_path: Path) -> None:
    execution = Execution(store=tmp_path)
    execute(spec(), execution)
    folder = tmp_path / "runs" / run_id(spec())[:2]
    taken = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert disk_bytes(spec(), execution) == pytest.approx(taken, rel=0.3)
