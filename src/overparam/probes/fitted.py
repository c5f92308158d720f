"""What a network made of its wrong labels, and what another choice of the moment would have reported."""

from typing import Literal

from pydantic import PositiveInt

from overparam.probes.probe import Measured


class Fitted(Measured):
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
    def ranked(self) -> tuple[str, ...]:
        return ()

    @property
    def forward_passes(self) -> float:
        return 3.0 * len(self.at)
