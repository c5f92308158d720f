"""Two orders of the examples: planned as a run of its own, measured on the straight path."""

from pathlib import Path

import pytest
import torch

from overparam.data.load import prepare
from overparam.foundations.torch_generators import torch_generator
from overparam.identity import run_id
from overparam.lab.backends.jobs import Job, Outcome
from overparam.lab.plan import make_plan
from overparam.lab.schedule import Scheduler
from overparam.measure.comparison.barrier import loss_barrier
from overparam.models.build import build
from overparam.probes.connectivity import Connectivity
from overparam.probes.loss_surface import LossSurface
from overparam.probes.probe import Probe, probe_id
from overparam.probes.spectral_density import SpectralDensity
from overparam.probes.taking import execute_and_measure, measure
from overparam.probes.weight_noise import WeightNoise
from overparam.runs.attempt import Interrupted
from overparam.runs.checks import UnsupportedSpec
from overparam.runs.execute import execute
from overparam.runs.execution import Execution
from overparam.runs.setting import Setting
from overparam.runs.store import Store
from overparam.specs import MLP, SGD, DataSpec, Magnitude, Rewind, RunSpec, TrainSpec

PROBE = Connectivity(num_examples=150, points=5)
DENSE = RunSpec(
    data=DataSpec(name="digits", num_train=200, num_test=100),
    model=MLP(width=(24, 12)),
    train=TrainSpec(optimizer=SGD(lr=0.2), batch_size=20, epochs=6),
)
TICKET = DENSE.model_copy(update={"init": Rewind(of=DENSE), "mask": Magnitude(of=DENSE, fraction=0.6)})


@pytest.mark.parametrize("spec", [DENSE, TICKET])
def test_the_barrier_is_that_of_the_two_trained_networks(tmp_path: Path, spec: RunSpec) -> None:
    execution = Execution(store=tmp_path)
    run = execute_and_measure(Setting(spec, execution), frozenset(), [PROBE], lambda: False)
    found = Store(tmp_path).measurement(run.run_id, probe_id(PROBE))["rows"][0]
    (other,) = PROBE.siblings(spec)
    assert other.streams == {"order": 10_000} and (other.init, other.mask) == (spec.init, spec.mask)
    examples = prepare(spec.data, data_dir=None)
    model = build(spec.model, examples.input_shape, examples.num_classes, generator=torch_generator(0, "x"))
    data = torch.from_numpy(examples.train.x)[:150], torch.from_numpy(examples.train.y)[:150]
    ends = run.weights(), execute(Setting(other, execution)).weights()
    assert not torch.equal(ends[0]["1.weight"], ends[1]["1.weight"])
    barrier = loss_barrier(model, *ends, data, points=5)
    assert (found["loss_barrier"], found["error_barrier"]) == (barrier.loss_barrier, barrier.error_barrier)
    assert found["losses"] == barrier.losses.tolist()


def test_a_plan_holds_the_other_run_and_no_run_waits_for_it(tmp_path: Path) -> None:
    plan = make_plan([TICKET], Execution(store=tmp_path), {run_id(DENSE): [PROBE]})
    assert [run.job.run_id for run in plan.runs] == [
        run_id(PROBE.siblings(DENSE)[0]),
        run_id(DENSE),
        run_id(TICKET),
    ]
    assert plan.runs[1].needs == frozenset() and plan.runs[2].needs == {run_id(DENSE)}


def test_its_own_order_is_no_other_order() -> None:
    assert PROBE.siblings(DENSE.model_copy(update={"streams": {"order": 10_000}}))[0].streams == {"order": 10_001}
    assert PROBE.siblings(DENSE.model_copy(update={"seed": 10_000}))[0].streams == {"order": 10_001}


def test_a_stop_reaches_the_training_of_the_other_run(tmp_path: Path) -> None:
    """Else Ctrl-C would wait for a whole run that a probe has started."""
    execution = Execution(store=tmp_path)
    run = execute(Setting(DENSE, execution))
    with pytest.raises(Interrupted):
        measure(Setting(DENSE, execution), run, PROBE, should_stop=lambda: True)
    (other,) = PROBE.siblings(DENSE)
    assert not Store(tmp_path).has(run_id(other))
    assert not Store(tmp_path).has_measurement(run.run_id, probe_id(PROBE))


def test_all_probes_that_fail_are_named(tmp_path: Path) -> None:
    probes = [LossSurface(num_examples=50, points=3), WeightNoise(num_examples=50, sigmas=(0.1,), scale="filter")]
    with pytest.raises(RuntimeError, match=r"LossSurface counts .*; .*WeightNoise counts"):
        execute_and_measure(Setting(TICKET, Execution(store=tmp_path)), frozenset(), probes, lambda: False)


def test_a_full_batch_and_steps_on_the_way_are_refused(tmp_path: Path) -> None:
    full = DENSE.model_copy(update={"train": DENSE.train.model_copy(update={"batch_size": "full"})})
    with pytest.raises(ValueError, match="has no order of examples"):
        make_plan([full], Execution(store=tmp_path), {run_id(full): [PROBE]})
    with pytest.raises(ValueError, match="Connectivity is of the whole run"):
        Connectivity(at=(0.0, 1.0))


@pytest.mark.parametrize(
    "probe",
    [
        LossSurface(num_examples=50, points=3),
        WeightNoise(num_examples=50, sigmas=(0.1,), scale="filter"),
        SpectralDensity(num_examples=50, steps=4, prior_precision=0.1),
    ],
)
def test_what_would_count_pruned_weights_is_refused(tmp_path: Path, probe: Probe) -> None:
    with pytest.raises(UnsupportedSpec, match="not defined here for a mask"):
        execute_and_measure(Setting(TICKET, Execution(store=tmp_path)), frozenset(), [probe], lambda: False)
    assert Store(tmp_path).has(run_id(TICKET)), "the run is kept"


class Failing:
    """A backend whose probe of the dense run fails after that run is trained."""

    capacity = 1

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.order: list[str] = []

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def next_outcome(self, timeout: float) -> Outcome:
        job = self.jobs.pop()
        self.order.append(job.run_id)
        failed = job.run_id == run_id(DENSE)
        return Outcome(job.run_id, 1.0, error="the probe failed" if failed else None, trained=failed)

    def stop(self) -> None: ...

    def close(self) -> None: ...


def test_a_probe_that_fails_stops_no_run_behind_it(tmp_path: Path) -> None:
    backend = Failing()
    swept = Scheduler(make_plan([TICKET], Execution(store=tmp_path)), {}, backend).run(lambda progress: None)
    assert backend.order == [run_id(DENSE), run_id(TICKET)]
    assert dict(swept.failures) == {run_id(DENSE): "the probe failed"} and swept.finished == 1
