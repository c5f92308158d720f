"""The studies, each a declaration."""

from overparam.specs.study import Study
from overparam.studies.batch_size import BATCH_SIZE

STUDIES: dict[str, Study] = {study.name: study for study in (BATCH_SIZE,)}
