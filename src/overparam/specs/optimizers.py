"""Optimizers as values. A new one is a class here and a member of the union at the end."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, field_validator

from overparam.identity import Spec


class OptimizerSpec(Spec):
    """An optimizer of `torch.optim`, called `torch_name` there, with its own settings."""

    kind: str
    lr: PositiveFloat

    @property
    def torch_name(self) -> str:
        raise NotImplementedError

    @property
    def settings(self) -> Mapping[str, object]:
        """Arguments of the PyTorch optimizer besides the parameters."""
        raise NotImplementedError

    @property
    def slots(self) -> int:
        """Numbers that it keeps for each parameter, and a state holds."""
        raise NotImplementedError


class SGD(OptimizerSpec):
    """Stochastic gradient descent with heavy-ball momentum."""

    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=0.0, ge=0.0)

    @property
    def torch_name(self) -> str:
        return "SGD"

    @property
    def settings(self) -> Mapping[str, object]:
        return {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}

    @property
    def slots(self) -> int:
        return 1 if self.momentum else 0


class Adam(OptimizerSpec):
    """Adam without weight decay."""

    kind: Literal["adam"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)

    @field_validator("betas")
    @classmethod
    def _betas_below_one(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError("each beta must lie in [0, 1)")
        return betas

    @property
    def torch_name(self) -> str:
        return "Adam"

    @property
    def settings(self) -> Mapping[str, object]:
        return {"lr": self.lr, "betas": self.betas}

    @property
    def slots(self) -> int:
        return 2


AnyOptimizer = Annotated[SGD | Adam, Field(discriminator="kind")]
