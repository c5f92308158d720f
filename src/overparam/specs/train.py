"""How a network is trained."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from overparam.identity import Spec
from overparam.specs.fields import Count
from overparam.specs.optimizers import AnyOptimizer


class TrainSpec(Spec):
    """How a network is trained. Exactly one of `epochs` and `steps` bounds the run.

    With `until_train_loss` the bound is only a cap: the run stops when the eval-mode loss on the whole
    training set lies within ±10 % of the smallest target, at a constant learning rate. Larger targets of a
    tuple are recorded on the way. The loss is looked at `loss_checks_per_epoch` times per epoch near a target.
    The cosine schedule is annealed per epoch, to 0 after the last.

    `linearize` trains the first-order Taylor model `f_θ0(x) + J_θ0(x)(θ − θ0)` around the initialization θ0, in eval
    mode: batch norm keeps its initial running statistics. `lazy_scale=α` trains `α (f_θ(x) − f_θ0(x))` on the loss
    divided by α² (Chizat, Oyallon & Bach 2019), α J_θ0(x)(θ − θ0) with `linearize`. All losses that are reported, and
    those that `until_train_loss` is compared with, are of that function and not divided; weight decay is added to the
    gradient of the divided loss. Adam takes the same steps whatever the loss is divided by, so that with it outputs
    move α times as fast instead.
    """

    neutral: ClassVar[Mapping[str, Any]] = {"lazy_scale": None}

    optimizer: AnyOptimizer
    batch_size: Count | Literal["full"]
    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    until_train_loss: PositiveFloat | tuple[PositiveFloat, ...] | None = None
    schedule: Literal["cosine", "constant"] = "cosine"
    linearize: bool = False
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"
    loss_checks_per_epoch: int = Field(default=8, ge=8)
    lazy_scale: PositiveFloat | None = None

    @model_validator(mode="after")
    def _stops(self) -> "TrainSpec":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps (with until_train_loss it is the cap)")
        if self.until_train_loss is not None and self.schedule != "constant":
            raise ValueError('until_train_loss needs schedule="constant": a decaying rate freezes the loss instead')
        return self

    @field_validator("until_train_loss")
    @classmethod
    def _targets_descend(cls, value: Any) -> Any:
        if value == ():
            raise ValueError("an empty tuple names no target; allowed: losses > 0; leave it out for a fixed length")
        if isinstance(value, tuple) and list(value) != sorted(set(value), reverse=True):
            raise ValueError("targets must be distinct and descending, as a run meets them")
        return value

    @property
    def loss_targets(self) -> tuple[float, ...]:
        """Targets from the largest to the smallest; empty if the run stops by its length."""
        if self.until_train_loss is None:
            return ()
        return self.until_train_loss if isinstance(self.until_train_loss, tuple) else (self.until_train_loss,)
