"""What a network made of its wrong labels, and what another choice of the moment would have reported."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from overparam.probes.probe import Probe, Values
from overparam.runs.result import EARLY_STOPPED

if TYPE_CHECKING:
    from torch import Tensor, nn

    from overparam.models.losses import LossName
    from overparam.probes.subject import Subject


class LabelFit(Probe):
    """Accuracy and loss on the training examples whose labels are right and on those whose labels are wrong.

    `recovered_accuracy` is the share of the latter that get their true label. `best_test_accuracy` is the highest of
    the evaluations along the run (about `Execution.evaluations` of them), `early_stopped_test_accuracy` that at the
    lowest validation loss: beside the value at the end they show what selection makes of a curve.
    """

    kind: Literal["fitted"] = "fitted"
    num_examples: PositiveInt = 100_000

    @property
    def metrics(self) -> tuple[str, ...]:
        by_label = ("clean_accuracy", "clean_loss", "flipped_accuracy", "flipped_loss", "recovered_accuracy")
        return (*by_label, "best_test_accuracy", "early_stopped_test_accuracy")

    @property
    def correct(self) -> Mapping[str, str]:
        return {"early_stopped_test_correct": EARLY_STOPPED}

    @property
    def forward_passes(self) -> float:
        return 3.0 * len(self.at)

    def take(self, subject: "Subject") -> Iterator[Values]:
        import torch

        examples, (x, y) = subject.setting.examples, subject.train(self.num_examples)
        true_y = torch.from_numpy(examples.clean_train_y)[: len(y)].to(y.device)
        wrong = torch.zeros(len(examples.clean_train_y), dtype=torch.bool)
        wrong[torch.from_numpy(examples.flipped)] = True
        wrong = wrong[: len(y)].to(y.device)
        for step in subject.steps:
            by_label = fit_by_label(subject.network(step), x, y, true_y, wrong, subject.loss)
            yield by_label | selected(subject.run.result["curves"])


def fit_by_label(
    model: "nn.Module", x: "Tensor", y: "Tensor", true_y: "Tensor", wrong: "Tensor", loss: "LossName"
) -> dict[str, float]:
    """Accuracy and loss on the examples with right and with wrong labels; NaN where there are none.

    Args:
        y: the labels that were trained on, (N,); `true_y` what they would be, and `wrong` (N,) says where they differ.
    """
    from overparam.models.risk import Risk, risk

    def of(part: "Tensor", labels: "Tensor") -> Risk:
        return risk(model, x[part], labels[part], loss) if bool(part.any()) else Risk(math.nan, math.nan, 0)

    clean, flipped = of(~wrong, y), of(wrong, y)
    return {
        "clean_accuracy": clean.accuracy,
        "clean_loss": clean.loss,
        "flipped_accuracy": flipped.accuracy,
        "flipped_loss": flipped.loss,
        "recovered_accuracy": of(wrong, true_y).accuracy,
    }


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
