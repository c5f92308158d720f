"""Which weights a mask keeps, and what it shares with the mask of another seed."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from overparam.identity import run_id
from overparam.probes.probe import Probe, Values
from overparam.specs.run import RunSpec

if TYPE_CHECKING:
    from overparam.models.masks import Mask
    from overparam.probes.subject import Subject


class MaskProfile(Probe):
    """The density of each layer, how many units are cut off, and what is shared with the mask of another seed.

    The other mask is that of the same run on the same data with seed `other_seed`; the runs behind it must be
    finished, not the run itself. `mask_excess` is the number of shared weights over that of masks whose places are
    drawn at random in each layer, with the same counts; `mask_overlap_z` is the distance from it in standard deviations
    (see `mask_overlap`). `mask_excess_by_inputs` is the same quotient for masks that keep the count of each input unit
    as well (see `expected_by_inputs`): hidden units of two seeds do not correspond, and what is above chance there is
    more than a common choice of inputs. A run of seed `other_seed`, or one with streams of its own, has no other.

    No number of it is a column of the table of runs: all are compared with one seed, and are not independent. No
    example is looked at; a dense run is refused.
    """

    kind: Literal["mask_profile"] = "mask_profile"
    num_examples: Literal[0] = 0
    other_seed: int = Field(default=0, ge=0)

    def other(self, spec: RunSpec) -> RunSpec | None:
        """The run of the other seed, with every run behind it."""
        if spec.seed == self.other_seed or any(each.streams for each in spec.ancestry()):
            return None
        return spec.with_parents(lambda each: each.model_copy(update={"seed": self.other_seed}))

    def siblings(self, spec: RunSpec) -> tuple[RunSpec, ...]:
        """What the other mask is made of."""
        other = self.other(spec)
        return () if other is None else other.parents()

    @property
    def only_whole(self) -> bool:
        return True

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("mask_excess", "mask_overlap_z", "mask_excess_by_inputs")

    @property
    def columns(self) -> tuple[str, ...]:
        return ()

    @property
    def forward_passes(self) -> float:
        return 0.0

    def take(self, subject: "Subject") -> Iterator[Values]:
        """Density and dead units by layer, in the order of the network, and the overlap against chance."""
        from overparam.runs.checks import UnsupportedSpec

        kept = subject.run.state("init").mask
        if not kept:
            raise UnsupportedSpec(f"mask = {subject.spec.mask.kind}, but a profile is of a mask; measure pruned runs")
        mask = {name: kept[name] for name in subject.setting.weight_shapes}  # a stored state has no particular order
        for _ in subject.steps:
            yield self._profile(mask, self._other_mask(subject))

    def _profile(self, mask: "Mask", theirs: "Mask | None") -> Values:
        from overparam.measure.comparison.masks import dead_units, density_profile
        from overparam.models.masks import density

        dead = dead_units(mask)
        return {
            "layers": list(mask),
            "density": density(mask),
            "densities": list(density_profile(mask).values()),
            "dead_outputs": [dead[name].outputs for name in mask],
            "dead_inputs": [dead[name].inputs for name in mask],
            **(dict.fromkeys(self.metrics, math.nan) if theirs is None else _shared(mask, theirs)),
        }

    def _other_mask(self, subject: "Subject") -> "Mask | None":
        """None where there is no other, or no mask of it because a run behind it diverged.

        Raises:
            StoreError: a run behind it was computed in another numeric environment, and `allow_mixed` is not set.
        """
        from overparam.runs.checks import UnsupportedSpec
        from overparam.runs.start import mask_of
        from overparam.runs.verified import refuse_diverged, refuse_mixed

        other, execution = self.other(subject.spec), subject.setting.execution
        if other is None:
            return None
        try:
            for parent in other.parents():
                environment = subject.other(parent).result["environment"]
                refuse_mixed(execution, environment, f"run {run_id(parent)} was computed")
            refuse_diverged(other, execution)
        except UnsupportedSpec:
            return None
        return mask_of(other, subject.setting.weight_shapes, execution)


def _shared(ours: "Mask", theirs: "Mask") -> dict[str, float]:
    from overparam.measure.comparison.masks import expected_by_inputs, mask_overlap

    found, by_inputs = mask_overlap(ours, theirs), expected_by_inputs(ours, theirs)
    return {
        "mask_excess": found.excess,
        "mask_overlap_z": found.z,
        "mask_excess_by_inputs": found.shared / by_inputs if by_inputs > 0 else 1.0,
    }
