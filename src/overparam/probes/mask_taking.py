"""What a run's mask keeps, and what it shares with the mask of another seed."""

import math
from collections.abc import Callable
from typing import Any

from overparam.data.load import prepare
from overparam.identity import run_id
from overparam.measure.comparison.masks import Mask, dead_units, density_profile, expected_by_inputs, mask_overlap
from overparam.models.masks import density
from overparam.probes.mask_profile import MaskProfile
from overparam.runs.checks import UnsupportedSpec
from overparam.runs.execute import execute
from overparam.runs.run import Run
from overparam.runs.start import mask_of, refuse_diverged
from overparam.runs.verified import refuse_mixed
from overparam.specs.models.layers import weight_shapes


def mask_values(run: Run, probe: MaskProfile, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """Density and dead units by layer, in the order of the network, and the overlap against chance.

    Raises:
        Interrupted: `should_stop` turned true while a run behind the other mask was trained.
        UnsupportedSpec: the run has no mask.
    """
    kept = run.state("init").mask
    if not kept:
        raise UnsupportedSpec(f"mask = {run.spec.mask.kind}, but a profile is of a mask; measure pruned runs")
    examples = prepare(run.spec.data, data_dir=run.execution.data_dir)
    shapes = weight_shapes(run.spec.model, examples.input_shape, examples.num_classes)
    mask = {name: kept[name] for name in shapes}  # a stored state has its tensors in no particular order
    dead, theirs = dead_units(mask), _other_mask(run, probe, should_stop)
    return {
        "layers": list(mask),
        "density": density(mask),
        "densities": list(density_profile(mask).values()),
        "dead_outputs": [dead[name].outputs for name in mask],
        "dead_inputs": [dead[name].inputs for name in mask],
        **(dict.fromkeys(probe.metrics, math.nan) if theirs is None else _shared(mask, theirs)),
    }


def _other_mask(run: Run, probe: MaskProfile, should_stop: Callable[[], bool]) -> Mask | None:
    """None where there is no other, or no mask of it because a run behind it diverged.

    Raises:
        StoreError: a run behind it was computed in another numeric environment, and `allow_mixed` is not set.
    """
    other = probe.other(run.spec)
    if other is None:
        return None
    try:
        for parent in other.parents():
            environment = execute(parent, run.execution, should_stop=should_stop).result["environment"]
            refuse_mixed(run.execution, environment, f"run {run_id(parent)} was computed")
        refuse_diverged(other, run.execution)
    except UnsupportedSpec:
        return None
    return mask_of(other, run.execution)


def _shared(ours: Mask, theirs: Mask) -> dict[str, float]:
    found, by_inputs = mask_overlap(ours, theirs), expected_by_inputs(ours, theirs)
    return {
        "mask_excess": found.excess,
        "mask_overlap_z": found.z,
        "mask_excess_by_inputs": found.shared / by_inputs if by_inputs > 0 else 1.0,
    }
