"""Probes of the tangent kernel on stored runs, against the same numbers put together by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from overparam.identity import run_id
from overparam.measure.comparison.movement import parameter_movement
from overparam.measure.kernels.empirical import empirical_kernel, empirical_ntk
from overparam.measure.kernels.infinite import analytic_ntk
from overparam.measure.kernels.linearization import linearize
from overparam.measure.kernels.similarity import kernel_drift
from overparam.probes.analytic_kernel import AnalyticKernel
from overparam.probes.linearization import Linearization
from overparam.probes.parameter_movement import ParameterMovement
from overparam.probes.probe import Probe, probe_id
from overparam.probes.taking import execute_and_measure
from overparam.probes.tangent_kernel import TangentKernel
from overparam.probes.taylor_error import TaylorError
from overparam.probes.trace_regression import TraceRegression
from overparam.runs.checks import UnsupportedSpec
from overparam.runs.execution import Execution
from overparam.runs.run import read
from overparam.runs.setting import Setting
from overparam.runs.store import Store
from overparam.specs import MLP, SGD, DataSpec, RunSpec, TrainSpec
from overparam.studies.ntk_regime import NTK_REGIME
from overparam.studies.ntk_regime.claims import THEORY

Found = dict[type[Probe], list[dict[str, Any]]]
DATA = DataSpec(name="digits", num_train=40, num_test=60)
ALONG = (0.0, 0.1, 1.0)
GD = {"optimizer": SGD(lr=0.02, momentum=0.0), "batch_size": "full", "steps": 60, "schedule": "constant", "loss": "mse"}
KINDS = (
    ParameterMovement(),
    TangentKernel(num_examples=20, at=(0.5, 1.0)),
    AnalyticKernel(num_examples=20),
    Linearization(num_test=50, at=ALONG),
    TraceRegression(num_examples=40, num_test=50),
    TaylorError(num_test=50),
)


def theory(width: int = 64, **train: Any) -> RunSpec:
    model = MLP(width=width, depth=3, parameterization="ntk", bias=False)
    return RunSpec(data=DATA, model=model, train=TrainSpec.model_validate({**GD, "lazy_scale": 1.0, **train}))


def taken(spec: RunSpec, probes: Sequence[Probe], store: Path) -> list[list[dict[str, Any]]]:
    execution = Execution(store=store)
    run = execute_and_measure(Setting(spec, execution), frozenset(), probes, lambda: False)
    return [Store(store).measurement(run.run_id, probe_id(probe))["rows"] for probe in probes]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def found(store: Path) -> Found:
    return {type(probe): rows for probe, rows in zip(KINDS, taken(theory(), KINDS, store), strict=True)}


@pytest.fixture(scope="module")
def by_hand(store: Path, found: Found) -> tuple[Setting, torch.nn.Module, torch.nn.Module]:
    assert found  # which trains the run
    run = read(theory(), Execution(store=store))
    setting = Setting(theory(), Execution(store=store))
    start, end = (setting.model(), setting.model())
    for model, state in ((start, run.state("init")), (end, run.state("final"))):
        model.load_state_dict({**state.weights, **state.buffers})
    return setting, start.eval(), end.eval()


@pytest.mark.parametrize("probe", KINDS, ids=lambda probe: type(probe).__name__)
def test_every_kernel_probe_gives_its_metrics(found: Found, probe: Probe) -> None:
    rows = found[type(probe)]
    assert len(rows) == len(probe.at)
    for row in rows:
        assert all(isinstance(row[name], float) for name in probe.metrics)
        assert {"step", "epoch", "lr"} <= row.keys()
    assert probe.ranked == () and probe.forward_passes >= 0.0
    assert set(probe.columns) <= set(probe.metrics)


def test_their_numbers_are_those_of_the_measures(
    found: Found, by_hand: tuple[Setting, torch.nn.Module, torch.nn.Module]
) -> None:
    setting, start, end = by_hand
    x, (x_test, _) = setting.train[0], setting.splits["test"]
    movement = parameter_movement(start, end)
    assert found[ParameterMovement][-1]["relative_movement"] == pytest.approx(movement.relative)
    assert found[ParameterMovement][-1]["absolute_movement"] == pytest.approx(movement.absolute)
    before, after = (empirical_ntk(model, x[:20]) for model in (start, end))
    assert found[TangentKernel][-1]["kernel_drift"] == pytest.approx(kernel_drift(before, after), rel=1e-5)
    limit = analytic_ntk(x[:20], depth=3)[:, :, None, None] * torch.eye(10)
    assert found[AnalyticKernel][-1]["analytic_distance"] == pytest.approx(
        kernel_drift(limit, before.double()), rel=1e-5
    )
    with torch.no_grad():
        apart = end(x_test[:50]) - linearize(start, x_test[:50])(end)
        moved = end(x_test[:50]) - start(x_test[:50])
    assert found[TaylorError][-1]["taylor_error"] == pytest.approx(float(apart.norm() / moved.norm()), rel=1e-3)


def test_kernels_of_lazy_networks_go_by_structure(by_hand: tuple[Setting, torch.nn.Module, torch.nn.Module]) -> None:
    """Their forward pass copies the parameters; by the Jacobian the study would take hours."""
    setting, start, _ = by_hand
    assert set(empirical_kernel(start, setting.train[0][:4]).routes.values()) == {"structured"}


def test_the_closed_form_twin_is_the_linearized_run(tmp_path: Path) -> None:
    """Against the same spec trained by the loop with linearize=True: the twin is not only near, it is that network."""
    (rows,) = taken(theory(), [Linearization(num_test=50, at=ALONG)], tmp_path)
    twin = theory(linearize=True)
    (linear,) = taken(twin, [Linearization(num_test=50, at=ALONG)], tmp_path)
    assert linear[-1]["linearization_error"] < 1e-3 * rows[-1]["linearization_error"] + 1e-5
    assert linear[-1]["network_accuracy"] == rows[-1]["kernel_accuracy"]


def test_the_error_is_the_largest_over_the_run(found: Found) -> None:
    rows = found[Linearization]
    assert [row["step"] for row in rows] == [0, 6, 60]
    assert rows[0]["difference"] < 1e-6 < rows[-1]["difference"]
    for i, row in enumerate(rows):
        assert row["linearization_error"] == max(each["difference"] for each in rows[: i + 1])


def test_a_network_that_is_linear_has_no_drift(tmp_path: Path) -> None:
    """One linear layer: drift, Taylor error and distance from its twin are rounding."""
    spec = theory().model_copy(update={"model": MLP(width=8, depth=1, parameterization="ntk", bias=False)})
    probes = [TangentKernel(num_examples=20), TaylorError(num_test=50), Linearization(num_test=50, at=ALONG)]
    drift, taylor, twin = (rows[-1] for rows in taken(spec, probes, tmp_path))
    assert drift["kernel_drift"] < 1e-6
    assert taylor["taylor_error"] < 1e-5
    assert twin["linearization_error"] < 1e-5


def test_a_rate_at_which_the_twin_diverges_is_a_status(tmp_path: Path) -> None:
    (rows,) = taken(
        theory(optimizer=SGD(lr=0.9, momentum=0.0), steps=4), [Linearization(num_test=50, at=ALONG)], tmp_path
    )
    assert rows[-1]["status"] == "diverges" and rows[-1]["linearization_error"] is None
    assert 0.0 < rows[-1]["kernel_accuracy_limit"] <= 1.0  # of the equations, at no rate


def test_the_smoke_preset_has_a_rate_at_which_no_twin_diverges(tmp_path: Path) -> None:
    """Narrow networks have the largest kernels, beyond that of infinite width: 2/λmax is of each network's own."""
    design = NTK_REGIME.designs["smoke"]
    (arm,) = [arm for arm in design.arms if arm.name == THEORY]
    for seed in design.seeds:
        spec = arm.levels[0].spec.model_copy(update={"seed": seed})
        setting = Setting(spec, Execution(store=tmp_path))
        kernel = empirical_ntk(setting.model().eval(), setting.train[0])
        n, _, c, _ = kernel.shape
        top = torch.linalg.eigvalsh(kernel.permute(0, 2, 1, 3).reshape(n * c, n * c))[-1]
        assert spec.train.optimizer.lr < 2.0 * n / float(top)


@pytest.mark.parametrize(
    ("spec", "probe", "message"),
    [
        (theory(optimizer=SGD(lr=0.02)), Linearization(at=ALONG), "without momentum"),
        (theory(loss="cross_entropy"), Linearization(at=ALONG), "full-batch gradient descent on mse"),
        (theory().model_copy(update={"model": MLP(width=8)}), AnalyticKernel(), "infinite width is known for MLP"),
    ],
)
def test_runs_that_the_theory_is_not_about_are_refused(
    spec: RunSpec, probe: Probe, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedSpec, match=message):
        taken(spec, [probe], tmp_path)
    assert Store(tmp_path).has(run_id(spec))


def test_linearization_needs_looks_on_the_way() -> None:
    with pytest.raises(ValueError, match="at least three shares"):
        Linearization(at=(1.0,))
