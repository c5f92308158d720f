"""A network on its right and on its wrong training labels."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from overparam.models.losses import LossName
from overparam.models.risk import Risk, risk


def fit_by_label(
    model: nn.Module, x: Tensor, y: Tensor, true_y: Tensor, wrong: Tensor, loss: LossName
) -> dict[str, float]:
    """Accuracy and loss on the examples with right and with wrong labels; NaN where there are none.

    Args:
        y: the labels that were trained on, (N,); `true_y` what they would be, and `wrong` (N,) says where they differ.
    """
    clean, flipped = (_risk(model, x[part], y[part], loss) for part in (~wrong, wrong))
    recovered = _risk(model, x[wrong], true_y[wrong], loss)
    return {
        "clean_accuracy": clean.accuracy,
        "clean_loss": clean.loss,
        "flipped_accuracy": flipped.accuracy,
        "flipped_loss": flipped.loss,
        "recovered_accuracy": recovered.accuracy,
    }


def _risk(model: nn.Module, x: Tensor, y: Tensor, loss: LossName) -> Risk:
    return risk(model, x, y, loss) if len(y) else Risk(math.nan, math.nan, 0)


def selected(curves: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    """The test accuracy that the best evaluation on the test set reports, and that at the lowest validation loss.

    >>> selected({"test_accuracy": [0.5, 0.7, 0.6], "val_loss": [2.0, 3.0, 1.0]})
    {'best_test_accuracy': 0.7, 'early_stopped_test_accuracy': 0.6}
    """
    tested = curves["test_accuracy"]
    watched = [(loss, value) for loss, value in zip(curves["val_loss"], tested, strict=True) if loss is not None]
    stopped = min(watched, key=lambda pair: pair[0])[1] if watched else None
    return {
        "best_test_accuracy": max((value for value in tested if value is not None), default=math.nan),
        "early_stopped_test_accuracy": math.nan if stopped is None else stopped,
    }
