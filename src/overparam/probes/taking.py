"""Probe × run → measurement: where a stored run meets a measure. What is in the store is not measured again."""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overparam.foundations.json_values import finite
from overparam.foundations.torch_generators import torch_generator
from overparam.identity import run_id
from overparam.measure.comparison.barrier import loss_barrier
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Problem
from overparam.measure.sharpness.relative_flatness import relative_flatness
from overparam.measure.sharpness.surface import loss_surface
from overparam.measure.sharpness.weight_noise import perturbation_curve
from overparam.measure.sharpness.worst_case import worst_case_sharpness
from overparam.measure.spectrum.density import spectral_density
from overparam.measure.spectrum.eigenvalues import top_eigenvalues
from overparam.measure.spectrum.trace import hessian_trace
from overparam.models.losses import LossName
from overparam.models.thin import thin
from overparam.probes.connectivity import Connectivity
from overparam.probes.early_stop import EarlyStop
from overparam.probes.early_stop_taking import early_stop_values, watcher
from overparam.probes.every import (
    Eigenvalues,
    Measured,
    Noise,
    RelativeFlatness,
    SpectralDensity,
    Surface,
    Trace,
    WorstCase,
    probe_id,
)
from overparam.probes.fitted import Fitted
from overparam.probes.fitted_taking import fit_by_label, selected
from overparam.probes.kernel import KernelProbe
from overparam.probes.kernel_taking import kernel_rows
from overparam.probes.mask_profile import MaskProfile
from overparam.probes.mask_taking import mask_values
from overparam.runs.attempt import Interrupted, Session
from overparam.runs.checks import UnsupportedSpec
from overparam.runs.determinism import settled
from overparam.runs.execute import execute
from overparam.runs.execution import Execution
from overparam.runs.run import Run, held, read
from overparam.runs.store import Store
from overparam.runs.training.observer import Observer
from overparam.runs.training.timetable import Timetable
from overparam.runs.verified import refuse_mixed
from overparam.specs.run import RunSpec

Values = dict[str, Any]
Batch = tuple[Tensor, Tensor]


def execute_and_measure(
    spec: RunSpec,
    execution: Execution,
    save_steps: frozenset[int],
    probes: Iterable[Measured],
    should_stop: Callable[[], bool],
) -> Run:
    """The finished run with every probe's measurement in the store.

    Raises:
        Interrupted: `should_stop` turned true; what was trained and measured until then is kept.
    """
    probes, store = list(probes), Store(execution.store)
    ahead = [each for each in probes if not store.has_measurement(run_id(spec), probe_id(each))]
    run, errors = execute(spec, execution, save_steps, should_stop, _watchers(ahead, spec, execution)), []
    for probe in probes:
        if should_stop():
            raise Interrupted(f"run {run.run_id} is trained, but not all its probes are taken")
        with held(store.lock(run.run_id, probe_id(probe)), run.run_id, should_stop):
            try:
                run = run if store.has_measurement(run.run_id, probe_id(probe)) else measure(run, probe, should_stop)
            except (ValueError, RuntimeError) as error:  # one probe that cannot be taken leaves the others
                errors.append(error)
    if len(errors) > 1:
        raise RuntimeError("; ".join(f"{type(error).__name__}: {error}" for error in errors))
    if errors:
        raise errors[0]
    return run


def _watchers(probes: Iterable[Measured], spec: RunSpec, execution: Execution) -> list[Observer]:
    """Observers of the probes that look while a run trains."""
    return [watcher(probe, spec, execution) for probe in probes if isinstance(probe, EarlyStop)]


def measure(run: Run, probe: Measured, should_stop: Callable[[], bool] = lambda: False) -> Run:
    """Take one probe of a run at the steps it names and keep the record. A run that diverged has no measurements.

    Raises:
        Interrupted: `should_stop` turned true while another run that the probe compares with was trained.
        StoreError: the run was computed in another numeric environment, and `allow_mixed` is not set.
    """
    began = time.process_time()
    mixed = refuse_mixed(run.execution, run.result["environment"], f"run {run.run_id} was computed")
    steps = [] if run.status == "diverged" else probe.looks(run.spec.first_step, int(run.result["steps"]))
    watchers = _watchers([probe], run.spec, run.execution) if steps else []
    run = execute(run.spec, run.execution, frozenset(steps), should_stop, watchers)  # one replay for all
    rows = _rows(run, probe, steps, should_stop)
    record = {
        "probe": probe.model_dump(mode="json"),
        "rows": rows,
        "data_digest": run.result["data_digest"],
        "environment": run.execution.environment,
        "mixed": mixed,
        "seconds": time.process_time() - began,
    }
    Store(run.execution.store).add_measurement(run.run_id, probe_id(probe), record)
    return read(run.spec, run.execution)


def _rows(run: Run, probe: Measured, steps: list[int], should_stop: Callable[[], bool]) -> list[Values]:
    """What a probe finds at each step, beside where it looked."""
    timetable = Timetable(run.spec.train, int(run.result["num_train"]))
    with settled(run.execution):
        if isinstance(probe, EarlyStop):
            found = [early_stop_values(run, probe) for _ in steps]
        elif isinstance(probe, MaskProfile):
            found = [mask_values(run, probe, should_stop) for _ in steps]
        elif isinstance(probe, KernelProbe):
            found = kernel_rows(run, probe, steps)
        else:
            found = [_at(run, probe, step, should_stop) for step in steps]
    places = ({"step": s, "epoch": s / timetable.steps_per_epoch, "lr": timetable.lr(max(0, s - 1))} for s in steps)
    return [finite(place | values) for place, values in zip(places, found, strict=True)]


def _at(run: Run, probe: Measured, step: int, should_stop: Callable[[], bool]) -> Values:
    state = run.state(step)
    session = Session(run.spec, run.execution, frozenset())
    model = session.model(state)
    x, y = (part[: probe.num_examples] for part in session.train)
    if isinstance(probe, Fitted):
        return _fitted(run, session, model, (x, y))
    if isinstance(probe, Connectivity):
        return _connectivity(run, probe, model, (x, y), should_stop)
    if state.mask and _counts_pruned(probe):
        raise UnsupportedSpec(f"{type(probe).__name__} counts weights or rows of weights; not defined here for a mask")
    model = thin(model, state.mask)
    return _values(probe, model, run.spec.train.loss, (x, y))


def _counts_pruned(probe: Measured) -> bool:
    """Whether a probe would take pruned weights for weights: in the length of a row, or in a number of parameters."""
    by_row = isinstance(probe, Surface) or (isinstance(probe, Noise) and probe.scale == "filter")
    return by_row or (isinstance(probe, SpectralDensity) and probe.prior_precision is not None)


def _fitted(run: Run, session: Session, model: nn.Module, data: Batch) -> Values:
    """By label, and what other choices of the moment would have reported of the whole run."""
    (x, y), examples = data, session.examples
    true_y = torch.from_numpy(examples.clean_train_y)[: len(y)].to(y.device)
    wrong = torch.zeros(len(examples.clean_train_y), dtype=torch.bool)
    wrong[torch.from_numpy(examples.flipped)] = True
    by_label = fit_by_label(model, x, y, true_y, wrong[: len(y)].to(y.device), run.spec.train.loss)
    return by_label | selected(run.result["curves"])


def _connectivity(
    run: Run, probe: Connectivity, model: nn.Module, data: Batch, should_stop: Callable[[], bool]
) -> Values:
    (sibling,) = probe.siblings(run.spec)
    other = execute(sibling, run.execution, should_stop=should_stop)
    if other.status == "diverged":
        return dict.fromkeys(probe.metrics, math.nan)
    ours, theirs = ({**s.weights, **s.buffers} for s in (run.state("final"), other.state("final")))
    found = loss_barrier(model, ours, theirs, data, run.spec.train.loss, points=probe.points)
    curves = {"losses": found.losses.tolist(), "errors": found.errors.tolist()}
    return {"error_barrier": found.error_barrier, "loss_barrier": found.loss_barrier, **curves}


def _values(probe: Measured, model: nn.Module, loss: LossName, data: Batch) -> Values:
    """Numbers of one probe; its metrics are among them."""
    generator = torch_generator(0, "probe", probe_id(probe))
    match probe:
        case Eigenvalues():
            return _eigenvalues(probe, model, loss, data, generator)
        case Noise():
            return _noise(probe, model, loss, data, generator)
        case Trace():
            found = hessian_trace(model, loss, data, max_products=probe.max_products, generator=generator)
            return {"trace": found.value, "lower": found.lower, "upper": found.upper, "status": found.status}
        case WorstCase():
            worst = worst_case_sharpness(
                model,
                loss,
                data,
                radius=probe.radius,
                norm=probe.norm,
                adaptive=probe.adaptive,
                steps=probe.steps,
                restarts=probe.restarts,
                generator=generator,
            )
            return {probe.metrics[0]: worst.value, "status": worst.status}
        case RelativeFlatness():
            flat = relative_flatness(model, loss, data, probes=probe.probes, generator=generator)
            return {"relative_flatness": flat.value, "lower": flat.lower, "upper": flat.upper, "status": flat.status}
        case SpectralDensity():
            return _density(probe, model, loss, data, generator)
        case Surface():
            surface = loss_surface(model, loss, data, span=probe.span, points=probe.points, generator=generator)
            return {"coordinates": surface.coordinates.tolist(), "losses": surface.losses.tolist()}
        case _:
            raise TypeError(f"no measure is known for {type(probe).__name__}")


def _eigenvalues(
    probe: Eigenvalues, model: nn.Module, loss: LossName, data: Batch, generator: torch.Generator
) -> Values:
    found = top_eigenvalues(
        model,
        loss,
        data,
        which="both",
        tol=probe.tol,
        certify=probe.certify,
        max_products=probe.max_products,
        generator=generator,
    )
    with opened(model, loss, data) as problem:
        mean_loss, _ = problem.risk()
        variance = softmax_variance(problem) if loss == "cross_entropy" else math.nan
    top, bottom = (float(value) for value in found.values[:, 0])
    return {
        "lambda_max": top,
        "lambda_min": bottom,
        "lambda_max_lower": float(found.lower[0, 0]),
        "lambda_max_upper": float(found.upper[0, 0]),
        "lambda_min_lower": float(found.lower[1, 0]),
        "lambda_min_upper": float(found.upper[1, 0]),
        "residual_max": float(found.residuals[0, 0]),
        "residual_min": float(found.residuals[1, 0]),
        "loss": mean_loss,
        "lambda_max_per_loss": top / mean_loss if mean_loss > 0 else math.nan,
        "softmax_variance": variance,
        "lambda_max_per_softmax_variance": top / variance if variance > 0 else math.nan,
        "status": found.status,
        "num_products": found.num_products,
    }


def _density(
    probe: SpectralDensity, model: nn.Module, loss: LossName, data: Batch, generator: torch.Generator
) -> Values:
    found = spectral_density(model, loss, data, steps=probe.steps, probes=probe.probes, generator=generator)
    sizes = {"num_parameters": found.num_parameters, "num_products": found.num_products}
    values = {"nodes": found.nodes.tolist(), "weights": found.weights.tolist(), **sizes}
    if probe.prior_precision is None:
        return values
    effective = found.effective_dimension(probe.prior_precision).value
    return values | {"effective_parameters": effective, "num_parameters": float(found.num_parameters)}


def softmax_variance(problem: Problem) -> float:
    """`(1/N) Σ_i Σ_c p_ic (1 − p_ic)`: the mean trace of the Hessian of cross-entropy in the outputs.

    What λmax would be proportional to if networks differed only in how sure they are of their outputs.
    """
    with torch.no_grad():
        chunks = [F.softmax(problem.outputs(problem.parts(), x).double(), dim=1) for x, _ in problem.chunks]
    return sum(float((p * (1.0 - p)).sum()) for p in chunks) / problem.num_examples


def _noise(probe: Noise, model: nn.Module, loss: LossName, data: Batch, generator: torch.Generator) -> Values:
    sigmas = list(probe.sigmas)
    curve = perturbation_curve(
        model,
        loss,
        data,
        sigmas,
        draws=probe.draws,
        scale=probe.scale,
        antithetic=probe.antithetic,
        generator=generator,
    )
    increases = dict(zip(probe.metrics, curve.increase.tolist(), strict=True))
    return {
        **increases,
        "sigma": sigmas,
        "loss": curve.base_loss,
        "accuracy": curve.base_accuracy,
        "increase_lower": curve.increase_lower.tolist(),
        "increase_upper": curve.increase_upper.tolist(),
        "accuracies": curve.accuracy_mean.tolist(),
    }
