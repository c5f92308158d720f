"""Does a small SGD batch generalize better than a large one, and does that survive the controls?"""

from overparam.studies.batch_size.designs import DESIGNS
from overparam.studies.study import Study

BATCH_SIZE = Study(
    name="batch_size",
    title="SGD batch size",
    question="Does a small batch generalize better than a large one, and does that survive the controls?",
    background=(
        "At equal epochs a large batch takes fewer steps and ends less trained, and the paper's learning rates are "
        "not linear in the batch size. The other arms hold one of these fixed at a time: what remains is the effect "
        "of the batch."
    ),
    factor="batch size",
    designs=DESIGNS,
)
