"""Budgets of the presets at the throughput of the reference machine, and timing on this one."""

import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from overparam.data.types import Sizes
from overparam.foundations import paths
from overparam.foundations.torch_generators import torch_generator
from overparam.identity import run_id
from overparam.lab import costs, throughput
from overparam.lab.costs import CostModel, Throughput, disk_bytes, throughput_key
from overparam.lab.experiment import Experiment, experiment
from overparam.lab.plan import cost_of, plan_of
from overparam.lab.throughput import measured_throughput
from overparam.models.build import build
from overparam.models.masks import Mask
from overparam.runs.execute import execute
from overparam.runs.execution import Execution
from overparam.runs.setting import Setting
from overparam.runs.training import loop
from overparam.runs.training.gradients import Gradient
from overparam.runs.training.pruning import thinned
from overparam.specs import CNN, MLP, SGD, DataSpec, Magnitude, RandomMask, RunSpec, TrainSpec
from overparam.specs.known_data import KNOWN_NUM_TRAIN
from overparam.specs.models.model import forward_flops
from overparam.studies.catalogue import STUDIES

NUM_TEST = {"digits": 500, "cifar10": 10_000, "mnist": 10_000}
INPUTS = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "mnist1d": (40,), "cifar10": (3, 32, 32)}


def fake_sizes(spec: DataSpec, data_dir: Path | None) -> Sizes:
    num_train = spec.num_train or KNOWN_NUM_TRAIN[spec.name]
    return Sizes(num_train, 0, spec.num_test or NUM_TEST[spec.name], INPUTS[spec.name], 10)


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("preset", ["smoke", "laptop"])
def test_a_preset_stays_inside_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: str, preset: str
) -> None:
    monkeypatch.setattr(costs, "sizes", fake_sizes)
    items = [experiment(name, preset) for name in STUDIES]
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


def test_what_was_timed_is_kept_and_not_timed_again(tmp_path: Path) -> None:
    timed: list[RunSpec] = []

    def measure(spec: RunSpec, execution: Execution) -> Throughput:
        timed.append(spec)
        return Throughput(0.01, 0.001)

    model = CostModel(Execution(store=tmp_path), 1, measure)
    first = model.seconds(spec())
    model.save()
    assert CostModel(Execution(store=tmp_path), 1, measure).seconds(spec()) == first
    assert CostModel(Execution(store=tmp_path), 1).seconds(spec()) == first
    assert timed == [spec()]


def test_without_timing_a_cost_is_that_of_the_reference_machine(tmp_path: Path) -> None:
    model = CostModel(Execution(store=tmp_path, evaluations=2), 1)
    flops = 2 * (64 * 32 + 2 * 32 * 32 + 32 * 10)
    step = 0.0004 + 32 * (0.7e-6 + 3 * flops / 60e9)
    assert model.seconds(spec()) == pytest.approx(costs.FIXED_SECONDS + 200 * step + 2 * 820 * (2e-6 + flops / 60e9))
    assert model.known == {}


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 11, 8), (40,)])
@pytest.mark.parametrize("model", [MLP(width=(30, 20)), CNN(channels=4), CNN(channels=3, batch_norm=False)])
def test_counted_arithmetic_is_that_of_a_forward_pass(model: MLP | CNN, shape: tuple[int, ...]) -> None:
    network = build(model, shape, 10, generator=torch_generator(0, "init")).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *shape))
    assert forward_flops(model, shape, 10) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("seconds", "times"), [(2**-14, throughput.MOST_TIMES), (2**-10, 51), (0.006, 15), (0.06, 4), (10.0, 2)]
)
def test_quick_actions_are_timed_more_often(monkeypatch: pytest.MonkeyPatch, seconds: float, times: int) -> None:
    clock, calls = [0.0], [0]

    def action() -> None:
        calls[0] += 1
        clock[0] += seconds if calls[0] > 1 else 2 * seconds  # the first is slow

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    assert throughput.median_seconds(action) == pytest.approx(seconds if times > 2 else 1.5 * seconds)
    assert calls[0] == times


def test_there_are_steps_enough_for_the_quickest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that stands still no step takes long enough; the laid-out ones ran out before."""
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)
    assert measured_throughput(spec(batch_size="full"), Execution(store=tmp_path)) == Throughput(0.0, 0.0)


def masked() -> RunSpec:
    return spec().model_copy(update={"mask": RandomMask(fraction=0.5)})


def test_what_costs_more_per_step_is_timed_on_its_own() -> None:
    kinds = [spec(), spec(loss="mse"), masked(), spec(linearize=True), spec(lazy_scale=2.0), spec(batch_size=16)]
    assert len({throughput_key(each, 320, {}) for each in kinds}) == len(kinds)
    pruned = spec().model_copy(update={"mask": Magnitude(of=spec(), fraction=0.2)})
    alike = [masked(), pruned, pruned.model_copy(update={"seed": 3})]
    assert len({throughput_key(each, 320, {}) for each in alike}) == 1


@pytest.mark.parametrize(("timed", "layers"), [(spec(), 0), (masked(), 4)])
def test_a_masked_run_is_timed_under_a_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timed: RunSpec, layers: int
) -> None:
    found: list[int] = []

    def thinned_counted(gradient: Gradient, model: nn.Module, mask: Mask) -> Gradient:
        found.append(len(mask))
        return thinned(gradient, model, mask)

    monkeypatch.setattr(throughput, "LONGEST_SECONDS", 0.01)
    monkeypatch.setattr(loop, "thinned", thinned_counted)
    assert measured_throughput(timed, Execution(store=tmp_path)).step > 0
    assert set(found) == ({layers} if layers else set())


@pytest.mark.parametrize("content", ["{", "[1]", '{"key": {"other": 1}}'])
def test_damaged_costs_count_as_none(tmp_path: Path, content: str) -> None:
    paths.costs_file(tmp_path).write_text(content)
    assert CostModel(Execution(store=tmp_path), workers=1).known == {}


@pytest.mark.parametrize("changed", [{}, {"optimizer": SGD(lr=1e8)}])
def test_every_run_takes_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, object]) -> None:
    monkeypatch.setattr(throughput, "LONGEST_SECONDS", 0.01)
    found = measured_throughput(spec(**changed), Execution(store=tmp_path))
    assert found.step > 0
    assert found.evaluated_example > 0


def test_costs_grow_with_steps_share_and_looks_at_the_loss(tmp_path: Path) -> None:
    model = CostModel(Execution(store=tmp_path, evaluations=2), 1, lambda spec, execution: Throughput(0.01, 0.001))
    fixed, evaluated = costs.FIXED_SECONDS, 2 * 820 * 0.001
    assert model.seconds(spec()) == pytest.approx(fixed + 200 * 0.01 + evaluated)
    assert model.seconds(spec(), share=0.5) == pytest.approx(fixed + 100 * 0.01 + evaluated)
    target = spec(until_train_loss=0.1, schedule="constant")
    assert model.seconds(target) == pytest.approx(fixed + 200 * 0.01 + evaluated + costs.LOOKS * 320 * 0.001)


def test_timing_leaves_the_run_as_it_is(tmp_path: Path) -> None:
    execution = Execution(store=tmp_path / "a")
    measured_throughput(spec(), execution)
    assert not (tmp_path / "a").exists()
    probed = execute(Setting(spec(), execution)).result["states"]
    assert probed == execute(Setting(spec(), Execution(store=tmp_path / "b"))).result["states"]


def test_disk_estimate_is_near_what_a_run_takes(tmp_path: Path) -> None:
    execution = Execution(store=tmp_path)
    execute(Setting(spec(), execution))
    folder = tmp_path / "runs" / run_id(spec())[:2]
    taken = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert disk_bytes(spec(), execution) == pytest.approx(taken, rel=0.3)
