"""Mean loss and accuracy of a model on a data set, in eval mode."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from overparam.models.losses import LossName, correctly_predicted, per_example

CHUNK = 1000  # examples per forward pass: large enough for full speed, small enough for any laptop


@dataclass(frozen=True)
class Risk:
    """Mean per-example loss and share of correct predictions over `count` examples; `correct` (N,) says which are."""

    loss: float
    accuracy: float
    count: int
    correct: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def bits(self) -> NDArray[np.uint8] | None:
        """Which predictions are correct, eight to a byte, the first in the highest bit; the last byte ends in zeros.

        >>> Risk(0.5, 2 / 3, 3, torch.tensor([True, False, True])).bits
        array([160], dtype=uint8)
        """
        return None if self.correct is None else np.packbits(self.correct.cpu().numpy())


@torch.no_grad()
def risk(model: nn.Module, x: Tensor, y: Tensor, loss: LossName = "cross_entropy") -> Risk:
    """Eval-mode loss `(1/N) Σ ℓ(f(x_i), y_i)` and accuracy; every module's mode is put back.

    Raises:
        ValueError: the data set is empty.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        return risk_of(model, x, y, loss)
    finally:
        for module, mode in modes:
            if module.training != mode:
                module.train(mode)


def risk_of(outputs_of: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, loss: LossName) -> Risk:
    """The same of any function of inputs.

    Sums run in float64 over chunks, so that a ragged last chunk weighs what it should.

    Raises:
        ValueError: the data set is empty.
    """
    if len(x) == 0:
        raise ValueError("risk of an empty data set is not defined; give at least one example")
    total_loss, parts = 0.0, []
    for start in range(0, len(x), CHUNK):
        outputs, labels = outputs_of(x[start : start + CHUNK]), y[start : start + CHUNK]
        total_loss += per_example(loss, outputs, labels).double().sum().item()
        parts.append(correctly_predicted(outputs, labels))
    correct = torch.cat(parts)
    return Risk(total_loss / len(x), int(correct.sum()) / len(x), len(x), correct)
