"""Does the test error fall, rise and fall again with width, and what makes it?"""

from overparam.studies.double_descent.designs import DESIGNS
from overparam.studies.study import Study

DOUBLE_DESCENT = Study(
    name="double_descent",
    title="Double descent",
    question="Does the test error fall, rise and fall again with width, where, and with which labels?",
    background=(
        "A curve that only falls is no double descent, and a peak made by one run that did not train is none either. A "
        "peak is called here only if its rise and its fall both hold in seeds that it was not chosen on. The widths "
        "are dense around the interpolation threshold, which was located on other seeds; wrong labels are drawn once "
        "per seed and are the same at every width; the value of the last epoch counts. For least squares the peak is "
        "known in closed form, and so is what removes it."
    ),
    factor="width",
    designs=DESIGNS,
    theory="least_squares",
)
