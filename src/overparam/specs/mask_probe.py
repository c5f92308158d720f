"""Which weights a mask keeps."""

from typing import Literal

from pydantic import Field

from overparam.specs.measured import Measured
from overparam.specs.run import RunSpec


class MaskProfile(Measured):
    """The density of each layer, the units that are cut off, and what is shared with the mask of another seed.

    The other mask is that of the same run on the same data with seed `other_seed`. `mask_excess` is the number of
    shared weights over that of masks whose places are drawn at random in each layer, with the same counts;
    `mask_overlap_z` is the distance from it in standard deviations (see `mask_overlap`). A run of seed `other_seed`
    has none to share with, and neither number. No example is looked at; a dense run is refused.
    """

    kind: Literal["mask_profile"] = "mask_profile"
    num_examples: Literal[0] = 0
    other_seed: int = Field(default=0, ge=0)

    def siblings(self, spec: RunSpec) -> tuple[RunSpec, ...]:
        """The run of the other seed, with every run behind it; none for that run itself."""
        if spec.seed == self.other_seed:
            return ()
        return (spec.with_parents(lambda each: each.model_copy(update={"seed": self.other_seed})),)

    @property
    def only_whole(self) -> bool:
        return True

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("mask_excess", "mask_overlap_z")

    @property
    def ranked(self) -> tuple[str, ...]:
        return ()

    @property
    def forward_passes(self) -> float:
        return 0.0
