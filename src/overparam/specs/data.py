"""Which examples a network sees."""

from typing import Literal

from pydantic import Field

from overparam.identity import Spec
from overparam.specs.fields import Count, Fraction
from overparam.specs.known_data import KNOWN_NUM_TRAIN


class DataSpec(Spec):
    """Which examples a network sees.

    `num_train`, `num_val` and `num_test` of `None` mean all there are; the validation examples are taken from
    the training pool and never overlap the training examples. `subset="balanced"` draws equal numbers per
    class with `data_seed`; `"first"` takes the first examples in stored order. `label_noise` is the exact share
    of training labels that are replaced, each by one of the other K − 1 classes, drawn once with `data_seed`.
    """

    name: str = Field(min_length=1)
    num_train: Count | None = None
    num_val: int = Field(default=0, ge=0)
    num_test: Count | None = None
    subset: Literal["balanced", "first"] = "balanced"
    label_noise: Fraction = 0.0
    normalize: bool = True
    data_seed: int = Field(default=0, ge=0)

    def known_num_train(self) -> int | None:
        """Number of training examples if it follows from the spec alone."""
        if self.num_train is not None:
            return self.num_train
        pool = KNOWN_NUM_TRAIN.get(self.name)
        return None if pool is None else pool - self.num_val
