"""The two arms at each preset, and what is measured of their runs."""

from collections.abc import Iterable

from overparam.probes.analytic_kernel import AnalyticKernel
from overparam.probes.linearization import Linearization
from overparam.probes.parameter_movement import ParameterMovement
from overparam.probes.tangent_kernel import TangentKernel
from overparam.probes.taylor_error import TaylorError
from overparam.probes.trace_regression import TraceRegression
from overparam.specs import MLP, SGD, DataSpec, RunSpec, TrainSpec
from overparam.studies.ntk_regime.claims import STANDARD, THEORY, claims
from overparam.studies.study import Arm, Design, Designs, Level, Panel, Probing

ALONG = (0.01, 0.03, 0.1, 0.3, 1.0)
FIRST_5000 = DataSpec(name="mnist", num_train=5000, subset="first")
WIDTHS = (32, 64, 128, 256, 512, 1024, 2048)
CAPTION = (
    "Four linear layers, ReLU. All seeds see the same examples. A seed varies the initialization and, under SGD, the "
    "order of the examples. Kernels at the start and drift are of {n:,} training examples, all blocks of outputs, in "
    "eval mode."
)


def published(widths: Iterable[int], data: DataSpec, train: TrainSpec) -> Arm:
    """The paper's own protocol."""
    return Arm(
        name=STANDARD,
        title="Standard parameterization, SGD",
        note="The published protocol: PyTorch's initialization, momentum .9, cosine schedule, cross-entropy, one "
        "learning rate for all widths. This kernel has no limit of infinite width.",
        levels=tuple(Level(value=w, spec=RunSpec(data=data, model=MLP(width=w), train=train)) for w in widths),
    )


def theory(widths: Iterable[int], data: DataSpec, lr: float, steps: int) -> Arm:
    """The setting that the theory is about. The rate lies below 2/λmax of each network's own kernel.

    That of width 32 is up to 3.4 times the kernel of infinite width on MNIST.
    """
    optimizer = SGD(lr=lr, momentum=0.0)
    length = {"batch_size": "full", "steps": steps, "schedule": "constant"}
    train = TrainSpec.model_validate({"optimizer": optimizer, **length, "loss": "mse", "lazy_scale": 1.0})
    models = {w: MLP(width=w, parameterization="ntk", bias=False) for w in widths}
    return Arm(
        name=THEORY,
        title="NTK parameterization, gradient descent",
        note=f"Full-batch gradient descent without momentum on the squared error, {steps} steps at rate {lr:g}, no "
        "biases. The function at the start is subtracted: its random values are as large as the targets, and no kernel "
        "can learn them.",
        levels=tuple(Level(value=w, spec=RunSpec(data=data, model=m, train=train)) for w, m in models.items()),
    )


def probings(kernel: int, test: int, regression: TraceRegression, at: int) -> tuple[Probing, ...]:
    """Movement and drift of all runs; what only one arm's theory allows, of that arm."""
    return (
        Probing(probe=ParameterMovement()),
        Probing(probe=TangentKernel(num_examples=kernel)),
        Probing(probe=TaylorError(num_test=test), arms=(STANDARD,)),
        Probing(probe=regression, arms=(STANDARD,), levels=(at,)),
        Probing(probe=AnalyticKernel(num_examples=kernel), arms=(THEORY,)),
        Probing(probe=Linearization(num_test=test, at=ALONG), arms=(THEORY,)),
        Probing(probe=TangentKernel(num_examples=kernel, at=ALONG), arms=(THEORY,), num_seeds=2),
    )


PANELS = (
    Panel(arm=STANDARD, metric="relative_movement", title="Relative movement", reference=-0.5),
    Panel(arm=STANDARD, metric="kernel_drift", title="Kernel drift"),
    Panel(arm=STANDARD, metric="taylor_error", title="Taylor error on test examples"),
    Panel(arm=STANDARD, metric="kernel_lambda_max_init", title="λmax(Θ)/N at the start"),
    Panel(arm=THEORY, metric="absolute_movement", title="Absolute movement", reference=0.0),
    Panel(arm=THEORY, metric="kernel_drift", title="Kernel drift", reference=-0.5),
    Panel(arm=THEORY, metric="linearization_error", title="Linearization error, test", reference=-0.5),
    Panel(arm=THEORY, metric="analytic_distance", title="Distance from infinite width", reference=-0.5),
)


def _smoke() -> Design:
    data, few, widths = DataSpec(name="digits"), DataSpec(name="digits", num_train=128), (16, 32, 64, 128, 256)
    regression = TraceRegression(num_examples=650, num_test=500)
    train = TrainSpec(optimizer=SGD(lr=0.02), batch_size=32, epochs=15)
    return Design(
        seeds=(0, 1, 2, 3, 4),
        arms=(published(widths, data, train), theory(widths[1:], few, lr=0.05, steps=160)),
        claims=claims(widths, widths[-1], widths[-1]),
        budget_core_seconds=70.0,
        caption=f"Digits 8×8. {CAPTION.format(n=64)}",
        probings=probings(64, 300, regression, widths[-1]),
        panels=PANELS,
    )


def _mnist(widths: tuple[int, ...], theory_widths: tuple[int, ...], budget: float | None) -> Design:
    few = DataSpec(name="mnist", num_train=256)
    train = TrainSpec(optimizer=SGD(lr=0.01), batch_size=128, epochs=30)
    return Design(
        seeds=(0, 1, 2, 3, 4),
        arms=(published(widths, FIRST_5000, train), theory(theory_widths, few, lr=0.15, steps=400)),
        claims=claims(widths, theory_widths[-1], 1024, comparable=True),
        budget_core_seconds=budget,
        caption=f"MNIST; the first 5,000 images under SGD, 256 class-balanced ones under gradient descent. "
        f"{CAPTION.format(n=128)}",
        probings=probings(128, 1000, TraceRegression(), 1024),
        panels=PANELS,
    )


DESIGNS = Designs(
    {
        "smoke": _smoke,
        "laptop": lambda: _mnist(WIDTHS, WIDTHS[:-1], 2400.0),
        "overnight": lambda: _mnist((*WIDTHS, 4096), (*WIDTHS, 4096), None),
        "paper": lambda: _mnist((*WIDTHS, 4096), (*WIDTHS, 4096), None),
    }
)
