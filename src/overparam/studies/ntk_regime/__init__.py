"""Do wide networks train as their tangent kernel would, and how much of what they learn does the kernel explain?"""

from overparam.studies.ntk_regime.designs import DESIGNS
from overparam.studies.study import Study

NTK_REGIME = Study(
    name="ntk_regime",
    title="The NTK regime",
    question="Do wide networks train as their tangent kernel would, and how much of their accuracy does it explain?",
    background=(
        "That weights move less in a wide network is read as a sign of the NTK regime, but in the standard "
        "parameterization the relative movement falls by the norm of the starting weights alone. Here the kernel is "
        "measured. The first arm repeats the published protocol, whose kernel has no limit of infinite width: only its "
        "movement and accuracy are claimed, the rest is shown. The second arm is the theory's: NTK parameterization, "
        "full-batch gradient descent below 2/λmax on the squared error. The two are never compared with each other."
    ),
    factor="width",
    designs=DESIGNS,
)
