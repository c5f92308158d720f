"""Runs of the linearized network and of the lazy form: the same loop, store, replays and probes."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.identity import digest_arrays, run_id
from overparam.models.build import build
from overparam.models.functional import Layout
from overparam.models.taylor.network import Linearized
from overparam.probes.probe import probe_id
from overparam.probes.taking import execute_and_measure
from overparam.runs.attempt import Interrupted
from overparam.runs.checks import UnsupportedSpec
from overparam.runs.execute import execute, train
from overparam.runs.execution import Execution
from overparam.runs.run import load_state
from overparam.runs.setting import Setting
from overparam.runs.store import Store
from overparam.runs.training.loop import train_loop
from overparam.runs.training.optim import build_optimizer
from overparam.specs import CNN, MLP, SGD, Adam, DataSpec, Rewind, RunSpec, TrainSpec
from overparam.specs.overrides import apply_overrides
from tests.support.kernels import jacobian_rows
from tests.support.probes import ALL

DATA = DataSpec(name="digits", num_train=60, num_test=40)
SMALL = MLP(width=8, depth=3, activation="tanh")
FORMS: dict[str, dict[str, Any]] = {
    "linearized": {"linearize": True},
    "lazy": {"lazy_scale": 4.0},
    "both": {"linearize": True, "lazy_scale": 4.0},
}


def spec(model: MLP | CNN = SMALL, *, init: Rewind | None = None, **fields: Any) -> RunSpec:
    recipe = {"optimizer": SGD(lr=0.05), "batch_size": 16, "epochs": 4} | fields
    parts = {"data": DATA, "model": model, "train": TrainSpec.model_validate(recipe)}
    return RunSpec.model_validate(parts | ({} if init is None else {"init": init}))


# ---- what is trained ----------------------------------------------------------------------------------------------


def flat(weights: dict[str, Tensor], like: nn.Module) -> Tensor:
    """In the model's own order: a store keeps names, not their order."""
    return Layout.join(weights[name] for name, _ in like.named_parameters())


def dense_reference(of: RunSpec) -> tuple[nn.Module, Tensor, Tensor]:
    """θ0 and θ of the same optimizer on `f0 + J(θ − θ0)`, or `α J(θ − θ0)`, with the dense J, all in float64."""
    setting = Setting(of, Execution())
    model = build(of.model, setting.examples.input_shape, 10, generator=torch_generator(of.seed, "init"))
    model, x, y = model.eval().double(), setting.train[0].double(), setting.train[1]
    rows, base = jacobian_rows(model, x), model(x).detach()
    start = Layout.join(model.parameters()).detach()
    holder = nn.ParameterList([nn.Parameter(start.clone())])
    theta, alpha = holder[0], of.train.lazy_scale
    optimizer = build_optimizer(of.train.optimizer, holder)
    steps_per_epoch, size = setting.timetable.steps_per_epoch, setting.timetable.batch_size
    for step in range(setting.timetable.total_steps):
        epoch, position = divmod(step, steps_per_epoch)
        optimizer.param_groups[0]["lr"] = setting.timetable.lr(step)
        batch = setting.order(epoch)[position * size : (position + 1) * size]
        slope = rows[batch] @ (theta.detach() - start)
        outputs = base[batch] + slope if alpha is None else alpha * slope
        targets = F.one_hot(y[batch], 10).double()
        residual = (outputs if of.train.loss == "mse" else outputs.softmax(1)) - targets
        theta.grad = torch.einsum("nc,ncp->p", residual, rows[batch]) / (len(batch) * (alpha or 1.0))
        optimizer.step()
    return model, start, theta.detach()


RECIPES: dict[str, dict[str, Any]] = {
    "full-batch GD": {"optimizer": SGD(lr=0.05, momentum=0.0), "batch_size": "full", "epochs": 40, "loss": "mse"},
    "cross-entropy": {"optimizer": SGD(lr=0.1, momentum=0.0), "batch_size": "full", "epochs": 40},
    "momentum": {"optimizer": SGD(lr=0.02), "batch_size": 16, "epochs": 10},
    "weight decay": {"optimizer": SGD(lr=0.02, weight_decay=0.01), "batch_size": 16, "epochs": 5, "loss": "mse"},
    "Adam": {"optimizer": Adam(lr=0.003), "batch_size": 16, "epochs": 5},
}


@pytest.mark.parametrize("alpha", [None, 4.0])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_linearized_run_is_gradient_descent_with_the_dense_jacobian(
    tmp_path: Path, recipe: str, alpha: float | None
) -> None:
    of = spec(linearize=True, schedule="constant", lazy_scale=alpha, **RECIPES[recipe])
    run = train(of, store=tmp_path)
    model, start, expected = dense_reference(of)
    assert torch.equal(flat(run.weights("init"), model), start.float())
    error = (flat(run.weights("final"), model).double() - expected).norm() / (expected - start).norm()
    assert error < 1e-4


def test_a_batch_norm_network_is_linearized_at_its_initial_statistics(tmp_path: Path) -> None:
    of = spec(CNN(channels=1), linearize=True, loss="mse", optimizer=SGD(lr=0.01, momentum=0.0))
    run = train(of, store=tmp_path)
    model, start, expected = dense_reference(of)
    error = (flat(run.weights("final"), model).double() - expected).norm() / (expected - start).norm()
    assert error < 1e-3
    first, last = run.state("init").buffers, run.state("final").buffers
    assert first.keys() == last.keys() and all(torch.equal(first[name], last[name]) for name in first)
    assert float(last["initial.1.running_mean"].abs().max()) == 0.0


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05), Adam(lr=0.01)])
def test_a_network_linear_in_its_parameters_trains_the_same_with_and_without(
    tmp_path: Path, optimizer: SGD | Adam
) -> None:
    plain, linear = (
        train(spec(MLP(width=1, depth=1), optimizer=optimizer, linearize=linearize), store=tmp_path)
        for linearize in (False, True)
    )
    assert plain.run_id != linear.run_id
    for name, value in plain.weights().items():
        assert torch.allclose(linear.weights()[name], value, rtol=1e-4, atol=1e-6), name
    assert linear.train_loss == pytest.approx(plain.train_loss, rel=1e-5)


def test_a_linearized_run_starts_as_the_nonlinear_one_and_has_its_names(tmp_path: Path) -> None:
    plain, linear = (train(spec(CNN(channels=2), linearize=each), store=tmp_path) for each in (False, True))
    assert plain.weights("init").keys() == linear.weights("init").keys() == linear.weights("final").keys()
    assert all(torch.equal(value, linear.weights("init")[name]) for name, value in plain.weights("init").items())


# ---- carried out like any other run -------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05), Adam(lr=0.01)])
@pytest.mark.parametrize("form", FORMS)
def test_interrupted_replayed_and_rewound_runs_end_in_the_same_bits(
    tmp_path: Path, form: str, optimizer: SGD | Adam
) -> None:
    """Convolutions in channels-last order, with batch norm."""
    of = spec(CNN(channels=2), optimizer=optimizer, **FORMS[form])
    straight = execute(Setting(of, Execution(store=tmp_path / "straight")), frozenset({5}))
    calls, execution = iter(range(100)), Execution(store=tmp_path / "broken")
    with pytest.raises(Interrupted, match="its checkpoint is kept"):
        execute(Setting(of, execution), should_stop=lambda: next(calls) >= 2)
    resumed = execute(Setting(of, execution))
    states = straight.result["states"]
    assert [resumed.result["states"][step] for step in ("0", "16")] == [states[step] for step in ("0", "16")]
    assert resumed.result["curves"] == straight.result["curves"]
    assert digest_arrays(load_state(of, 5, execution).arrays()) == states["5"]
    rewound = train(of.model_copy(update={"init": Rewind(of=of, step=5)}), store=tmp_path / "broken")
    assert rewound.result["states"]["16"] == states["16"]


def test_a_rewound_run_of_another_seed_keeps_what_it_was_linearized_at(tmp_path: Path) -> None:
    of = spec(linearize=True)
    child = of.model_copy(update={"init": Rewind(of=of, step=4), "seed": 1})
    first, last = train(of, store=tmp_path).state("init").buffers, train(child, store=tmp_path).state("final").buffers
    assert all(torch.equal(value, first[name]) for name, value in last.items())


@pytest.mark.parametrize("field", [{"linearize": True}, {"lazy_scale": 2.0}])
def test_rewinding_to_a_run_of_another_form_is_refused(tmp_path: Path, field: dict[str, Any]) -> None:
    name = next(iter(field))
    with pytest.raises(UnsupportedSpec, match=rf"train.{name} is .* here but .* in init.of; they must be the same"):
        train(spec(init=Rewind(of=spec(), step=0), **field), store=tmp_path)
    with pytest.raises(UnsupportedSpec, match=f"train.{name} is"):
        train(spec(init=Rewind(of=spec(**field), step=0)), store=tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_every_probe_can_be_taken(tmp_path: Path, form: str) -> None:
    """Convolutions where one of the two is alone: each takes paths of its own through the measures."""
    model = SMALL if form == "both" else CNN(channels=1)
    of, execution = spec(model, **FORMS[form]), Execution(store=tmp_path)
    run = execute_and_measure(Setting(of, execution), frozenset(), ALL, lambda: False)
    for probe in ALL:
        rows = Store(tmp_path).measurement(run.run_id, probe_id(probe))["rows"]
        assert all(math.isfinite(rows[-1][name]) for name in probe.metrics if isinstance(rows[-1][name], float))


# ---- the scale ----------------------------------------------------------------------------------------------------


def test_the_scale_can_be_set_by_name_and_changes_the_id_only_where_it_is_set() -> None:
    plain = spec()
    lazy = apply_overrides(plain, ["train.lazy_scale=8"])
    assert lazy.train.lazy_scale == 8.0
    assert run_id(lazy) != run_id(plain)
    assert apply_overrides(lazy, ["train.lazy_scale=null"]) == plain
    assert run_id(apply_overrides(plain, ["train.linearize=true"])) != run_id(plain)
    with pytest.raises(ValueError, match=r"train.lazy_scale = 0; allowed: a number > 0 or null"):
        apply_overrides(plain, ["train.lazy_scale=0"])


def test_reported_losses_and_the_target_are_those_of_the_function_itself(tmp_path: Path) -> None:
    """A loss divided by α² = 10⁴ would meet the target at once."""
    until: dict[str, Any] = {"until_train_loss": 0.3, "schedule": "constant", "epochs": 400, "loss": "mse"}
    run = train(spec(lazy_scale=100.0, **until), store=tmp_path)
    assert run.result["end"] == "target"
    assert run.train_loss == pytest.approx(0.3, rel=0.1)
    assert run.result["steps"] > 4


# ---- width --------------------------------------------------------------------------------------------------------

WIDTHS = (64, 256, 1024, 4096)


def twins(width: int, seed: int) -> tuple[float, float]:
    """`sup_t` of the root mean square difference on held-out inputs of a network and its linearized twin, and the
    network's relative movement in the end.
    """
    generator = torch_generator(seed, "inputs")
    inputs = F.normalize(torch.randn(48, 8, generator=generator, dtype=torch.float64)) * 8**0.5
    x, held_out = inputs[:16], inputs[16:]
    y = (x[:, 0] * x[:, 1]).unsqueeze(1)
    shape = MLP(width=width, depth=2, parameterization="ntk")
    model = build(shape, (8,), 1, generator=torch_generator(seed, "init")).double()
    start, stops = Layout.join(model.parameters()).detach().clone(), frozenset(range(0, 51, 5))
    recipe = TrainSpec(
        optimizer=SGD(lr=0.4, momentum=0.0), batch_size="full", steps=50, loss="mse", schedule="constant"
    )
    paths = []
    for network in (Linearized(model), model):
        moments = train_loop(network, x, y, recipe, order=lambda epoch: torch.arange(16), stops=stops)
        paths.append(torch.stack([moment.model(held_out).detach() for moment in moments]))
    error = (paths[0] - paths[1]).square().mean((1, 2)).sqrt().max()
    change = Layout.join(model.parameters()).detach() - start
    return float(error), float(change.norm() / start.norm())


def width_slopes(seeds: int) -> tuple[float, float]:
    """Least-squares slopes in log–log of the geometric means over seeds."""
    found = torch.tensor([[twins(width, seed) for width in WIDTHS] for seed in range(seeds)]).double().log().mean(0)
    widths = torch.tensor(WIDTHS).double().log()
    centred = widths - widths.mean()
    slopes = (centred.unsqueeze(1) * found).sum(0) / centred.square().sum()
    return float(slopes[0]), float(slopes[1])


def test_linearization_error_and_movement_fall_with_width() -> None:
    """Lee et al. (2019): O(n^−1/2). Two linear layers, ReLU, NTK form; 16 inputs on the sphere of radius √8 in eight
    dimensions, targets x₁x₂, 32 held-out inputs; 50 steps of plain GD at lr .4 on half the squared error; 4 seeds.

    Slopes differ between seeds, as f_θ0 does: over seeds 0–11 they are −.67 ± .04 and −.49 ± .02 (standard errors).
    """
    error, movement = width_slopes(4)
    assert -0.7 <= error <= -0.4
    assert movement == pytest.approx(-0.5, abs=0.06)
