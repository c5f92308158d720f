"""Optimizers."""

from typing import Literal

from pydantic import Field, PositiveFloat, field_validator

from overparam.identity import Spec


class SGD(Spec):
    """Stochastic gradient descent with heavy-ball momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: PositiveFloat
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=0.0, ge=0.0)


class Adam(Spec):
    """Adam without weight decay."""

    kind: Literal["adam"] = "adam"
    lr: PositiveFloat
    betas: tuple[float, float] = (0.9, 0.999)

    @field_validator("betas")
    @classmethod
    def _betas_below_one(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError("each beta must lie in [0, 1)")
        return betas
