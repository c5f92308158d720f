"""The studies, each a declaration."""

from overparam.studies.batch_size import BATCH_SIZE
from overparam.studies.double_descent import DOUBLE_DESCENT
from overparam.studies.loss_landscape import LOSS_LANDSCAPE
from overparam.studies.lottery_ticket import LOTTERY_TICKET
from overparam.studies.ntk_regime import NTK_REGIME
from overparam.studies.study import Study

STUDIES: dict[str, Study] = {
    study.name: study for study in (BATCH_SIZE, LOSS_LANDSCAPE, DOUBLE_DESCENT, NTK_REGIME, LOTTERY_TICKET)
}
