"""Does a large batch find sharper minima, beyond what its train loss explains?"""

from overparam.studies.loss_landscape.designs import DESIGNS
from overparam.studies.study import Study

LOSS_LANDSCAPE = Study(
    name="loss_landscape",
    title="Flat and sharp minima",
    question="Does a large batch find sharper minima, and how much of that is only a higher train loss?",
    background=(
        "The curvature of cross-entropy shrinks with the loss itself, so a network that fits better looks flatter for "
        "that reason alone. The runs of the batch-size study are measured here, at equal epochs and at equal train "
        "loss, by measures that a rescaling of the weights changes and by one that it does not."
    ),
    factor="batch size",
    designs=DESIGNS,
)
