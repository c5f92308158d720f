"""Per-example losses, in forms that keep their digits where networks saturate."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LossName = Literal["cross_entropy", "mse"]


def cross_entropy_per_example(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in margin form, shape (N,).

    `ℓ = softplus(logsumexp_{j≠y} z_j − z_y)`, equal to `logsumexp_j z_j − z_y` but without the cancellation
    that turns a loss of 1e-8 into 0 in float32.

    >>> loss = cross_entropy_per_example(torch.tensor([[20.0, 0.0]]), torch.tensor([0]))
    >>> f"{loss.item():.6e}"  # log(1 + e⁻²⁰)
    '2.061154e-09'
    """
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf).logsumexp(1)
    return F.softplus(others - logits.gather(1, labels.unsqueeze(1)).squeeze(1), threshold=80.0)


def mse_per_example(outputs: Tensor, labels: Tensor) -> Tensor:
    """½‖f − y‖² over all outputs of an example, with y one-hot if the labels are integers, shape (N,).

    Raises:
        ValueError: targets that are no labels have another shape than the outputs.
    """
    targets = labels if labels.is_floating_point() else one_hot(labels, outputs)
    if targets.shape != outputs.shape:
        raise ValueError(f"mse: targets of shape {tuple(targets.shape)} for outputs of shape {tuple(outputs.shape)}")
    squares = (outputs - targets).square()
    return 0.5 * (squares.flatten(1).sum(1) if squares.ndim > 1 else squares)


def one_hot(labels: Tensor, like: Tensor) -> Tensor:
    """Rows (N, C) with a 1 at the label; unlike PyTorch's it looks at no value, so that it can be vectorized."""
    return (labels.unsqueeze(1) == torch.arange(like.shape[1], device=like.device)).to(like.dtype)


def per_example(loss: LossName, outputs: Tensor, labels: Tensor) -> Tensor:
    """Per-example losses (N,) of the named loss."""
    return (cross_entropy_per_example if loss == "cross_entropy" else mse_per_example)(outputs, labels)


def batch_mean(loss: LossName, outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of a training batch: PyTorch's own cross-entropy, as every training recipe has it."""
    return F.cross_entropy(outputs, labels) if loss == "cross_entropy" else mse_per_example(outputs, labels).mean()


def correctly_predicted(outputs: Tensor, labels: Tensor) -> Tensor:
    """Which rows of outputs (N, C) have their maximum at the label, shape (N,); a row that holds NaN has none.

    >>> correctly_predicted(torch.tensor([[2.0, 1.0], [torch.nan, torch.nan]]), torch.tensor([0, 0])).tolist()
    [True, False]
    """
    return (outputs.argmax(1) == labels) & ~outputs.isnan().any(1)


def correct_predictions(outputs: Tensor, labels: Tensor) -> int:
    """How many they are."""
    return int(correctly_predicted(outputs, labels).sum())
