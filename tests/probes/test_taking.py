"""Probes travel with runs: planned, measured once, kept with the run, and put into the table."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from overparam.claims.claim import Claim
from overparam.claims.estimand import Difference, Every, Point
from overparam.foundations.paths import measurement_file, run_dir
from overparam.foundations.torch_generators import torch_generator
from overparam.identity import run_id
from overparam.lab.backends.jobs import Job
from overparam.lab.experiment import of_design
from overparam.lab.laboratory import carry_out
from overparam.lab.plan import make_plan, plan_of, steps_ahead
from overparam.lab.results import study_result
from overparam.lab.table import frame_of, readings_of, taken_of
from overparam.measure.problem.opening import opened
from overparam.measure.products.operators import CurvatureOperator, dense
from overparam.measure.spectrum.eigenvalues import top_eigenvalues
from overparam.probes.extreme_eigenvalues import ExtremeEigenvalues, softmax_variance
from overparam.probes.hessian_trace import HessianTrace
from overparam.probes.linearization import Linearization
from overparam.probes.probe import Probe, probe_id
from overparam.probes.spectral_density import SpectralDensity
from overparam.probes.taking import execute_and_measure
from overparam.probes.weight_noise import WeightNoise
from overparam.runs.attempt import Interrupted
from overparam.runs.checks import UnsupportedSpec
from overparam.runs.execute import train
from overparam.runs.execution import Execution
from overparam.runs.run import read
from overparam.runs.setting import Setting
from overparam.runs.store import Store, StoreError
from overparam.specs import MLP, SGD, DataSpec, RunSpec, TrainSpec
from overparam.studies.study import Arm, Design, Level, Probing, Study
from tests.support.probes import ALL


def spec(seed: int = 0, lr: float = 0.05, **train: object) -> RunSpec:
    length = {"optimizer": SGD(lr=lr), "batch_size": 32, "epochs": 2} | train
    settings = TrainSpec.model_validate(length)
    return RunSpec(
        data=DataSpec(name="digits", num_train=100, num_test=50), model=MLP(width=8), train=settings, seed=seed
    )


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Execution:
    execution = Execution(store=tmp_path_factory.mktemp("store"))
    execute_and_measure(Setting(spec(), execution), frozenset(), ALL, never)
    return execution


@pytest.mark.parametrize("probe", ALL, ids=lambda probe: f"{probe.kind}-{probe_id(probe)[:4]}")
def test_every_probe_gives_its_metrics_and_states_its_cost(measured: Execution, probe: Probe) -> None:
    """A contract over all members: a new probe without a branch, a metric or a cost is found here."""
    record = Store(measured.store).measurement(run_id(spec()), probe_id(probe))
    assert len(record["rows"]) == len(probe.at)
    for row in record["rows"]:
        assert all(isinstance(row[name], float) for name in probe.metrics)
        assert {"step", "epoch", "lr"} <= row.keys()
    assert record["seconds"] >= 0.0 and probe.forward_passes > 0.0
    assert type(probe).model_validate(record["probe"]) == probe


@pytest.mark.parametrize("probe", ALL, ids=lambda probe: f"{probe.kind}-{probe_id(probe)[:4]}")
def test_measuring_again_gives_the_same_numbers(measured: Execution, probe: Probe, tmp_path: Path) -> None:
    again = replace(measured, store=tmp_path)
    execute_and_measure(Setting(spec(), again), frozenset(), [probe], never)
    first, second = (Store(e.store).measurement(run_id(spec()), probe_id(probe))["rows"] for e in (measured, again))
    assert first == second


def test_a_probe_measures_the_trained_network(measured: Execution) -> None:
    """Against the same measure on a model put together by hand: other weights or other data would differ."""
    run = read(spec(), measured)
    setting = Setting(spec(), measured)
    model = setting.model()
    model.load_state_dict(run.weights("final"))
    x, y = setting.train
    found = top_eigenvalues(model, "cross_entropy", (x[:50], y[:50]), which="both", certify=0.06, dtype=torch.float64)
    row = Store(measured.store).measurement(run.run_id, probe_id(ALL[0]))["rows"][-1]
    assert row["lambda_max"] == pytest.approx(float(found.values[0, 0]), rel=1e-3)
    assert row["lambda_min"] == pytest.approx(float(found.values[1, 0]), abs=1e-2 * row["lambda_max"])
    assert row["lambda_max_lower"] <= row["lambda_max"] <= row["lambda_max_upper"]


def test_effective_parameters_are_the_sum_over_the_stored_spectrum(measured: Execution) -> None:
    """Transcribed from the nodes: the sum over one probe's weights is one estimate of Σ λ/(λ + c)."""
    (probe,) = [each for each in ALL if isinstance(each, SpectralDensity) and each.prior_precision is not None]
    (row,) = Store(measured.store).measurement(run_id(spec()), probe_id(probe))["rows"]
    sums = [
        sum(weight * node / (node + 0.02) for node, weight in zip(nodes, weights, strict=True) if node > 0)
        for nodes, weights in zip(row["nodes"], row["weights"], strict=True)
    ]
    assert row["num_parameters"] == sum(p.numel() for p in read(spec(), measured).weights("final").values())
    assert row["effective_parameters"] == pytest.approx(row["num_parameters"] * sum(sums) / len(sums))
    assert 0 < row["effective_parameters"] < row["num_parameters"]


def test_a_probe_looks_back_at_the_steps_it_names(measured: Execution) -> None:
    rows = Store(measured.store).measurement(run_id(spec()), probe_id(ALL[1]))["rows"]
    assert [row["step"] for row in rows] == [0, 4, 8]
    final = Store(measured.store).measurement(run_id(spec()), probe_id(ALL[0]))["rows"][-1]["lambda_max"]
    assert rows[-1]["lambda_max"] == pytest.approx(final, rel=1e-2)
    assert rows[0]["lambda_max"] != pytest.approx(final, rel=1e-2)


def test_states_that_probes_want_are_known_before_training() -> None:
    assert steps_ahead(spec(), ALL[1]) == {0, 4, 8}
    assert steps_ahead(spec(), ALL[0]) == frozenset()
    stopped = spec(until_train_loss=0.5, schedule="constant")
    assert steps_ahead(stopped, ALL[1]) == frozenset()
    (planned,) = make_plan([spec()], Execution(store=Path("nowhere")), {run_id(spec()): ALL[:2]}).runs
    assert planned.job.save_steps == {0, 4, 8}


def test_the_id_of_a_probe_is_of_its_settings() -> None:
    assert probe_id(HessianTrace()) == probe_id(HessianTrace(max_products=45))
    assert len({probe_id(probe) for probe in ALL}) == len(ALL)


def test_a_job_survives_its_journey() -> None:
    job = Job(run_id(spec()), spec(), frozenset({1}), ALL)
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_only_what_is_missing_is_planned(measured: Execution) -> None:
    extra = HessianTrace(num_examples=50, max_products=6)
    (planned,) = make_plan([spec()], measured, {run_id(spec()): (*ALL, extra)}).runs
    assert planned.trained and not planned.cached and planned.job.probes == (extra,)
    (done,) = make_plan([spec()], measured, {run_id(spec()): ALL}).runs
    assert done.cached and done.job.probes == ()


def test_a_diverged_run_has_a_measurement_without_rows(tmp_path: Path) -> None:
    """It is measured as far as it can be, so that the study does not plan it for ever."""
    wild, execution = spec(lr=1e6), Execution(store=tmp_path)
    run = execute_and_measure(Setting(wild, execution), frozenset(), ALL[:1], never)
    assert run.status == "diverged"
    assert Store(tmp_path).measurement(run.run_id, probe_id(ALL[0]))["rows"] == []


def test_a_stop_between_probes_keeps_what_was_measured(tmp_path: Path) -> None:
    execution = Execution(store=tmp_path)
    train(spec(), store=tmp_path)
    answers = iter([False, True])
    with pytest.raises(Interrupted, match="not all its probes"):
        execute_and_measure(Setting(spec(), execution), frozenset(), [ALL[5], ALL[2]], lambda: next(answers, True))
    store = Store(tmp_path)
    assert store.has_measurement(run_id(spec()), probe_id(ALL[5]))
    assert not store.has_measurement(run_id(spec()), probe_id(ALL[2]))


def test_a_probe_that_cannot_be_taken_leaves_the_others(tmp_path: Path) -> None:
    """What comes after it is measured, and its error is not lost."""
    impossible, execution = Linearization(at=(0.1, 0.5, 1.0)), Execution(store=tmp_path)
    with pytest.raises(UnsupportedSpec, match="a linearized network is solved in closed form for full-batch"):
        execute_and_measure(Setting(spec(), execution), frozenset(), [impossible, ALL[5]], never)
    assert Store(tmp_path).has_measurement(run_id(spec()), probe_id(ALL[5]))


def test_two_processes_do_not_take_one_probe(tmp_path: Path) -> None:
    """While another holds its lock a probe is waited for, not taken; what the other then wrote is used."""
    execution, store = Execution(store=tmp_path), Store(tmp_path)
    train(spec(), store=tmp_path)
    with store.lock(run_id(spec()), probe_id(ALL[5])):
        answers = iter([False, False, True])
        with pytest.raises(Interrupted, match="computed by another process"):
            execute_and_measure(Setting(spec(), execution), frozenset(), ALL[5:6], lambda: next(answers, True))
    assert not store.has_measurement(run_id(spec()), probe_id(ALL[5]))


def test_a_run_of_another_environment_is_measured_only_by_leave(tmp_path: Path) -> None:
    execution = Execution(store=tmp_path, threads=1)
    train(spec(), store=tmp_path)
    elsewhere = replace(execution, threads=2)
    with pytest.raises(StoreError, match="another numeric environment .*--allow-mixed"):
        execute_and_measure(Setting(spec(), elsewhere), frozenset(), ALL[5:6], never)
    execute_and_measure(Setting(spec(), replace(elsewhere, allow_mixed=True)), frozenset(), ALL[5:6], never)
    assert "threads" in Store(tmp_path).measurement(run_id(spec()), probe_id(ALL[5]))["mixed"][0]


def test_a_solve_that_did_not_converge_has_no_number_in_the_table(tmp_path: Path) -> None:
    """The record keeps what was found; a claim must not take it for an eigenvalue."""
    short = ExtremeEigenvalues(num_examples=50, tol=1e-6, certify=None, max_products=3)
    item = of_design(STUDY, "smoke", design().model_copy(update={"probings": (Probing(probe=short),)}))
    execution = Execution(store=tmp_path)
    execute_and_measure(Setting(item.cells[0].spec, execution), frozenset(), [short], never)
    record = Store(tmp_path).measurement(run_id(item.cells[0].spec), probe_id(short))
    assert record["rows"][-1]["status"] == "max_products" and record["rows"][-1]["lambda_max"] > 0.0
    assert frame_of(item, execution, taken_of(item, execution))["lambda_max"].is_null().all()


def test_softmax_variance_is_the_mean_trace_of_the_output_hessian() -> None:
    model = nn.Linear(3, 4)
    x, y = torch.randn(7, 3, generator=torch_generator(0, "x")), torch.zeros(7, dtype=torch.long)
    with opened(model, "cross_entropy", (x, y)) as problem:
        found = softmax_variance(problem)

    def loss(z: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(z[None], y[:1])

    hessian = torch.autograd.functional.hessian
    traces = [float(hessian(loss, z).trace()) for z in model(x).detach()]  # type: ignore[no-untyped-call]
    assert found == pytest.approx(sum(traces) / 7, rel=1e-5)


def test_a_column_has_one_source() -> None:
    """A probe that follows a run gives no columns: it would overwrite those of the trained network."""
    along = Probing(probe=ExtremeEigenvalues(num_examples=50, at=(0.5, 1.0)))
    final = Probing(probe=ExtremeEigenvalues(num_examples=50))
    design().model_copy(update={"probings": (along, final)})
    twice = Probing(probe=ExtremeEigenvalues(num_examples=60), arms=("b",), num_seeds=1)
    with pytest.raises(ValueError, match='two probes of b, level 16.0, give "lambda_max"'):
        design().model_copy(update={"probings": (along, final, twice)})


def test_a_damaged_measurement_is_refused(measured: Execution, tmp_path: Path) -> None:
    execution = replace(measured, store=tmp_path)
    execute_and_measure(Setting(spec(), execution), frozenset(), ALL[5:6], never)
    file = measurement_file(run_dir(tmp_path, run_id(spec())), probe_id(ALL[5]))
    file.write_text(file.read_text().replace('"trace": ', '"trace": 1'))
    with pytest.raises(StoreError, match="damaged"):
        Store(tmp_path).measurement(run_id(spec()), probe_id(ALL[5]))


def design(claims: tuple[Claim, ...] = ()) -> Design:
    levels = tuple(Level(value=size, spec=spec(batch_size=size, epochs=40)) for size in (16, 32))
    arms = tuple(Arm(name=name, title=name, note="", levels=levels) for name in ("a", "b"))
    probings = (
        Probing(probe=WeightNoise(num_examples=50, sigmas=(0.05, 0.1))),
        Probing(probe=HessianTrace(num_examples=50, max_products=6), arms=("a",), levels=(32,), num_seeds=2),
    )
    return Design(seeds=(0, 1, 2), arms=arms, claims=claims, caption="", probings=probings)


STUDY = Study(name="s", title="S", question="", background="", factor="f", designs={"smoke": design()})


@pytest.mark.usefixtures("in_process")
def test_a_study_of_probes_end_to_end(tmp_path: Path) -> None:
    """Jobs hold probes, the table holds the numbers in their cells only, and an intersection–union claim is judged."""
    parts = tuple(
        Difference(metric=f"absolute_noise_{s}", a=Point(arm="a", level=16), b=Point(arm="a", level=32), scale="log")
        for s in ("0.05", "0.1")
    )
    claim = Claim(name="c", sentence="s", estimand=Every(parts=parts), test="superiority", margin=0.4, pilot_sd=0.5)
    item, execution = of_design(STUDY, "smoke", design((claim,))), Execution(store=tmp_path)
    swept = carry_out(plan_of([item], execution), {}, execution, workers=1)
    assert not swept.failures
    frame = frame_of(item, execution, taken_of(item, execution))
    assert frame["absolute_noise_0.1"].is_not_null().all()
    traced = frame.filter(frame["trace"].is_not_null()).select("arm", "level", "seed").rows()
    assert sorted(traced) == [("a", "32", 0), ("a", "32", 1)]
    assert (frame["probe_seconds"] > 0).all()
    assert len(readings_of(item, taken_of(item, execution))) == 12 + 2
    (verdict,) = study_result(item, execution, "command").verdicts
    assert verdict.n == 3 and any("weakest of 2 parts" in caveat for caveat in verdict.caveats)
    assert not plan_of([item], execution).missing


def test_a_claim_must_ask_for_a_metric_that_something_gives() -> None:
    difference = Difference(metric="lambda_max", a=Point(arm="a", level=16), b=Point(arm="a", level=32))
    claim = Claim(name="c", sentence="s", estimand=difference, test="superiority", margin=0.4, pilot_sd=0.5)
    with pytest.raises(ValueError, match='claim c needs "lambda_max"; there are: .*trace'):
        design((claim,))


def test_shares_end_at_the_end() -> None:
    with pytest.raises(ValueError, match="ascending shares of the run, the last of them 1"):
        HessianTrace(at=(0.5,))


def test_the_penalty_on_the_weights_is_not_in_the_curvature(tmp_path: Path) -> None:
    """A run with weight decay c trains on L + c‖θ‖²/2, whose Hessian has c more on its diagonal; ours is that of L."""
    decayed = spec(optimizer=SGD(lr=0.05, weight_decay=3.0))
    execution, probe = Execution(store=tmp_path), ExtremeEigenvalues(num_examples=50)
    execute_and_measure(Setting(decayed, execution), frozenset(), (probe,), lambda: False)
    setting = Setting(decayed, execution)
    model = setting.model()
    model.load_state_dict(read(decayed, execution).weights("final"))
    x, y = setting.train
    with opened(model, "cross_entropy", (x[:50], y[:50]), dtype=torch.float64) as problem:
        values = torch.linalg.eigvalsh(dense(CurvatureOperator(problem)))
    (row,) = Store(tmp_path).measurement(run_id(decayed), probe_id(probe))["rows"]
    assert row["lambda_max"] == pytest.approx(float(values[-1]), rel=1e-2, abs=1e-2)


def test_a_run_that_diverged_has_an_empty_measurement_of_every_probe(tmp_path: Path) -> None:
    """Also of one that is not defined for such a run: nothing is computed that could be refused."""
    wild, execution = spec(optimizer=SGD(lr=1e8)), Execution(store=tmp_path)
    probes = [Linearization(at=(0.1, 0.5, 1.0)), ALL[5]]
    assert execute_and_measure(Setting(wild, execution), frozenset(), probes, never).status == "diverged"
    for probe in probes:
        assert Store(tmp_path).measurement(run_id(wild), probe_id(probe))["rows"] == []
