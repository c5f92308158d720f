"""How a run ended, decided by rules fixed before any run."""

import math

from overparam.models.losses import LossName
from overparam.models.risk import Risk
from overparam.runs.result import End, Status


def status_of(end: End, train: Risk, num_classes: int, loss: LossName, has_target: bool) -> Status:
    """`diverged`: non-finite loss. `collapsed`: final eval-mode train loss ≥ .98 ln K, or accuracy ≤ 1.5/K, for K < 10
    classes ≤ 1/K + .05. `censored`: a loss target was set and not met. Else `ok`.
    """
    if end == "diverged" or not math.isfinite(train.loss):
        return "diverged"
    uninformed = loss == "cross_entropy" and train.loss >= 0.98 * math.log(num_classes)
    if uninformed or train.accuracy <= min(1.5 / num_classes, 1.0 / num_classes + 0.05):
        return "collapsed"
    return "censored" if has_target and end != "target" else "ok"
