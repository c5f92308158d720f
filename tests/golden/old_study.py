"""A small study that uses nearly everything a store can hold, and the script that made `old_store` from it.

The store beside this module and `old_report.json` were written by the version of before the package's layout changed.
They stand for the stores that people have, so they are read by every later version and are not written again, unless
`SCHEMA` of the store changes and old stores are refused on purpose: `python -m tests.golden.old_study` from the root.
"""

import shutil
import tempfile
from math import prod
from pathlib import Path

import overparam
from overparam.claims.claim import Claim
from overparam.claims.estimand import Concordance, Difference, Every, Mean, Peak, PeakPlace, Point, Slope
from overparam.probes.analytic_kernel import AnalyticKernel
from overparam.probes.connectivity import Connectivity
from overparam.probes.early_stop import EarlyStop
from overparam.probes.extreme_eigenvalues import ExtremeEigenvalues
from overparam.probes.hessian_trace import HessianTrace
from overparam.probes.label_fit import LabelFit
from overparam.probes.linearization import Linearization
from overparam.probes.loss_surface import LossSurface
from overparam.probes.mask_profile import MaskProfile
from overparam.probes.parameter_movement import ParameterMovement
from overparam.probes.relative_flatness import RelativeFlatness
from overparam.probes.spectral_density import SpectralDensity
from overparam.probes.tangent_kernel import TangentKernel
from overparam.probes.taylor_error import TaylorError
from overparam.probes.trace_regression import TraceRegression
from overparam.probes.weight_noise import WeightNoise
from overparam.probes.worst_case import WorstCase
from overparam.specs import CNN, MLP, SGD, DataSpec, RunSpec, TrainSpec
from overparam.specs.models.model import weight_shapes
from overparam.specs.pruning import controls, iterative_pruning
from overparam.studies.study import Arm, Design, Level, Panel, Probing, Study

STORE = Path(__file__).with_name("old_store")
REPORT = Path(__file__).with_name("old_report.json")

DATA = DataSpec(name="digits", num_train=100, num_val=20, num_test=50, label_noise=0.1)
TINY = MLP(width=4, depth=3)
OPTIMIZER = SGD(lr=0.1)


def dense(batch_size: int | str) -> RunSpec:
    length = {"steps": 60} if batch_size == "full" else {"epochs": 12}
    train = TrainSpec.model_validate({"optimizer": OPTIMIZER, "batch_size": batch_size, **length})
    return RunSpec(data=DATA, model=TINY, train=train)


SIZES = {name: prod(shape) for name, shape in weight_shapes(TINY, (1, 8, 8), 10).items()}
TICKET = iterative_pruning(dense(20), [0.4], step=5)[-1]
CONTROLS = controls(TICKET, SIZES)
EQUAL = TrainSpec(optimizer=OPTIMIZER, batch_size=20, steps=400, until_train_loss=(2.0, 1.5), schedule="constant")
DESCENT = TrainSpec(
    optimizer=SGD(lr=0.1, momentum=0.0),
    batch_size="full",
    steps=20,
    schedule="constant",
    loss="mse",
    lazy_scale=1.0,
)
LAZY = RunSpec(data=DATA, model=MLP(width=4, depth=2, parameterization="ntk", bias=False), train=DESCENT)
LINEARIZED = LAZY.model_copy(update={"train": DESCENT.model_copy(update={"linearize": True, "lazy_scale": None})})
CONVOLUTIONAL = RunSpec(
    data=DATA,
    model=CNN(channels=1),
    train=TrainSpec(optimizer=SGD(lr=0.1, momentum=0.0), batch_size=50, epochs=2),
)

ARMS = (
    Arm(
        name="sizes",
        title="Batch sizes",
        note="The rate is the same at each batch size.",
        levels=(
            *(Level(value=float(size), spec=dense(size)) for size in (10, 20, 50)),
            Level(value="full lr 0.1", spec=dense("full")),
        ),
        group="tiny",
    ),
    Arm(
        name="equal loss",
        title="Equal loss",
        note="Trained to one loss.",
        levels=(Level(value=20.0, spec=dense(20).model_copy(update={"train": EQUAL}), expected_share=0.5),),
        group="tiny",
        num_seeds=1,
    ),
    Arm(
        name="tickets",
        title="Tickets",
        note="Pruned by magnitude and rewound.",
        levels=(Level(value=0.6, spec=TICKET),),
    ),
    Arm(
        name="controls",
        title="Controls",
        note="As many weights in other places.",
        levels=tuple(Level(value=name, spec=CONTROLS[name]) for name in ("shuffled", "random")),
    ),
    Arm(
        name="lazy",
        title="Lazy",
        note="Gradient descent on mse, beside the first-order model.",
        levels=(Level(value="network", spec=LAZY), Level(value="linearized", spec=LINEARIZED)),
        num_seeds=1,
    ),
    Arm(
        name="convolutional",
        title="Convolutional",
        note="Another network.",
        levels=(Level(value=50.0, spec=CONVOLUTIONAL),),
        num_seeds=1,
    ),
)

PROBINGS = (
    Probing(probe=ExtremeEigenvalues(num_examples=50, certify=None), arms=("sizes",)),
    Probing(probe=WeightNoise(num_examples=50, sigmas=(0.01, 0.1)), arms=("sizes",), levels=(10.0, 20.0)),
    Probing(probe=ParameterMovement(), arms=("sizes",), levels=(20.0, "full lr 0.1")),
    Probing(probe=LabelFit(), arms=("sizes",), levels=(10.0,)),
    Probing(probe=EarlyStop(every=5), arms=("sizes",), levels=(10.0, 20.0)),
    Probing(probe=Connectivity(num_examples=50, points=3), arms=("sizes",), levels=(20.0,), num_seeds=1),
    Probing(probe=HessianTrace(num_examples=50, max_products=9), arms=("sizes",), num_seeds=1),
    Probing(probe=SpectralDensity(num_examples=50, steps=4), arms=("sizes",), levels=(10.0,), num_seeds=1),
    Probing(
        probe=WorstCase(num_examples=50, radius=0.01, norm="l2", steps=3), arms=("sizes",), levels=(10.0,), num_seeds=1
    ),
    Probing(probe=RelativeFlatness(num_examples=50, probes=4), arms=("sizes",), levels=(10.0,), num_seeds=1),
    Probing(probe=LossSurface(num_examples=50, points=3), arms=("sizes",), levels=(10.0,), num_seeds=1),
    Probing(probe=MaskProfile(), arms=("tickets",)),
    Probing(probe=ParameterMovement(at=(0.5, 1.0)), arms=("lazy",), levels=("network",)),
    Probing(probe=TangentKernel(num_examples=10), arms=("lazy",), levels=("network",)),
    Probing(probe=AnalyticKernel(num_examples=10), arms=("lazy",), levels=("network",)),
    Probing(probe=Linearization(num_test=20, at=(0.0, 0.5, 1.0)), arms=("lazy",), levels=("network",)),
    Probing(probe=TraceRegression(num_examples=50, num_test=50), arms=("lazy",), levels=("network",)),
    Probing(probe=TaylorError(num_test=20), arms=("lazy",), levels=("network",)),
)

SMALL, LARGE = Point(arm="sizes", level=10.0), Point(arm="sizes", level="full lr 0.1")
FOUND = Point(arm="tickets", level=0.6)
OTHERS = tuple(Point(arm="controls", level=name) for name in ("shuffled", "random"))


def claim(name: str, **fields: object) -> Claim:
    usual = {"name": name, "sentence": f"It holds: {name}.", "test": "superiority", "margin": 0.02, "pilot_sd": 0.05}
    return Claim.model_validate(usual | fields)


CLAIMS = (
    claim(
        "above_chance",
        estimand=Mean(metric="test_accuracy", at=SMALL),
        null=0.1,
        paper_value=0.5,
        paper_note="said of a larger network",
        comparable=True,
    ),
    claim("small_better", estimand=Difference(metric="test_accuracy", a=SMALL, b=LARGE)),
    claim("sharper", estimand=Difference(metric="lambda_max", a=SMALL, b=LARGE, scale="log"), margin=0.2),
    claim(
        "ticket_wins",
        estimand=Every(parts=tuple(Difference(metric="test_accuracy", a=FOUND, b=other) for other in OTHERS)),
        test="noninferiority",
    ),
    claim("falls", estimand=Slope(metric="test_accuracy", arm="sizes"), direction="less"),
    claim("flat_loss", estimand=Slope(metric="train_loss", arm="sizes", scale="log"), test="equivalence", margin=0.5),
    claim("goes_with", estimand=Concordance(metric="lambda_max", other="gap", arm="sizes"), confirmatory=False),
    claim("peak", estimand=Peak(metric="test_loss", arm="sizes"), confirmatory=False),
    claim(
        "trough",
        estimand=Peak(metric="test_accuracy", arm="sizes", trough=True, levels=(10, 20, 50)),
        confirmatory=False,
    ),
    claim("place", estimand=PeakPlace(metric="test_loss", arm="sizes", reaches=20.0), confirmatory=False, margin=0.5),
    claim(
        "place_after",
        estimand=PeakPlace(metric="test_loss", arm="sizes", other="train_loss", reaches=1.8),
        test="equivalence",
        confirmatory=False,
        margin=0.5,
    ),
    claim(
        "stopping",
        estimand=Difference(metric="early_stop_accuracy", a=SMALL, b=SMALL, other="test_accuracy"),
        test="equivalence",
        confirmatory=False,
    ),
)

DESIGN = Design(
    seeds=(0, 1, 2),
    arms=ARMS,
    claims=CLAIMS,
    budget_core_seconds=60.0,
    caption="Tiny networks.",
    probings=PROBINGS,
    panels=(Panel(arm="sizes", metric="lambda_max", title="Sharpness against batch size", reference=-0.5),),
    evaluations=4,
)

STUDY = Study(
    name="old",
    title="An old study",
    question="Is what was stored read as it was?",
    background="A store outlives the version that wrote it.",
    factor="batch size",
    designs={"smoke": DESIGN},
)


def write() -> None:
    """Run the study in an empty store; keep its runs and its report's numbers."""
    with tempfile.TemporaryDirectory() as folder:
        results = overparam.run(STUDY, preset="smoke", store=folder, workers=1)
        report = results.report()
        shutil.rmtree(STORE, ignore_errors=True)
        shutil.copytree(Path(folder) / "runs", STORE / "runs")
        shutil.copy(report.with_name("report.json"), REPORT)


if __name__ == "__main__":
    write()
