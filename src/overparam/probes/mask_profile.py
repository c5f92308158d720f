"""Which weights a mask keeps."""

from typing import Literal

from pydantic import Field

from overparam.probes.probe import Measured
from overparam.specs.run import RunSpec


class MaskProfile(Measured):
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
