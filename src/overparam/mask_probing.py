"""What a run's mask keeps, and what it shares with the mask of another seed."""

import math
from typing import Any

from overparam.data.load import prepare
from overparam.execute import execute
from overparam.measure.tickets import dead_units, density_profile, mask_overlap
from overparam.runs import Run
from overparam.specs.layers import weight_shapes
from overparam.specs.mask_probe import MaskProfile
from overparam.stored import UnsupportedSpec


def mask_values(run: Run, probe: MaskProfile) -> dict[str, Any]:
    """Density and dead units by layer, in the order of the network, and the overlap against chance.

    Raises:
        UnsupportedSpec: the run has no mask.
    """
    kept = run.state("init").mask
    if not kept:
        raise UnsupportedSpec(f"mask = {run.spec.mask.kind}, but a profile is of a mask; measure pruned runs")
    examples = prepare(run.spec.data, data_dir=run.execution.data_dir)
    shapes = weight_shapes(run.spec.model, examples.input_shape, examples.num_classes)
    mask = {name: kept[name] for name in shapes}  # a stored state has its tensors in no particular order
    others = [execute(spec, run.execution).state("init").mask for spec in probe.siblings(run.spec)]
    found = [mask_overlap(mask, other) for other in others]
    dead = dead_units(mask)
    return {
        "layers": list(mask),
        "densities": list(density_profile(mask).values()),
        "dead_outputs": [dead[name].outputs for name in mask],
        "dead_inputs": [dead[name].inputs for name in mask],
        "mask_excess": found[0].excess if found else math.nan,
        "mask_overlap_z": found[0].z if found else math.nan,
    }
