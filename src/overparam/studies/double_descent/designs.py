"""The study at each preset: its arms, and what is measured of their networks."""

from overparam.probes.extreme_eigenvalues import ExtremeEigenvalues
from overparam.probes.hessian_trace import HessianTrace
from overparam.probes.label_fit import LabelFit
from overparam.probes.spectral_density import SpectralDensity
from overparam.probes.weight_noise import WeightNoise
from overparam.specs import CNN, SGD, DataSpec, RunSpec, TrainSpec
from overparam.studies.double_descent.arms import (
    ENDLESS,
    N_SIGNALS,
    SIGNALS,
    WRONG,
    cnns,
    epochs,
    equal_loss,
    published,
    samples,
    signals,
)
from overparam.studies.double_descent.claims import CLEAN, EQUAL_LOSS, NOISY, PUBLISHED_CNN, claims
from overparam.studies.double_descent.grid import MNIST1D_THRESHOLD, SMOKE_THRESHOLD, around, width_of
from overparam.studies.study import Arm, Design, Designs, Level, Panel, Probing

SIGNAL_LENGTH, CLASSES = 40, 10
OF_NOISY = {
    "best_test_accuracy": "Accuracy of the best look",
    "early_stopped_test_accuracy": "Accuracy when stopped early",
    "flipped_accuracy": "Wrong labels fitted",
    "num_parameters": "Parameters",
    "effective_parameters": "Effective parameters",
}
CAPTION = (
    "The value of the last epoch. A seed varies the initialization, the order of the examples and the data: subset or "
    "sample, and which labels are wrong, the same at every width."
)


def probings(arms: tuple[Arm, ...], n: int, num_train: int) -> tuple[Probing, ...]:
    """Fit by label of every arm but that at equal loss; curvature there and along the widths on MNIST-1D.

    Effective parameters are against a prior of precision 1 for the summed loss, which is 1/N for the mean loss.
    """
    names = tuple(arm.name for arm in arms)
    noisy = tuple(name for name in names if name == NOISY)
    curved = tuple(name for name in names if name in (CLEAN, NOISY, EQUAL_LOSS))
    matched = tuple(name for name in names if name == EQUAL_LOSS)
    found = [
        Probing(probe=LabelFit(), arms=tuple(name for name in names if name != EQUAL_LOSS)),
    ]
    if curved:
        found.append(Probing(probe=ExtremeEigenvalues(num_examples=n), arms=curved))
    if noisy:
        found.append(Probing(probe=SpectralDensity(num_examples=n // 2, prior_precision=1 / num_train), arms=noisy))
    if matched:
        found.append(Probing(probe=HessianTrace(num_examples=n), arms=matched))
        found.append(Probing(probe=WeightNoise(num_examples=n, sigmas=(0.2,), scale="adaptive"), arms=matched))
    return tuple(found)


def panels(arms: tuple[Arm, ...]) -> tuple[Panel, ...]:
    """What has no place in the figure of accuracies: loss, what selection reports, parameters, curvature."""
    shown = [Panel(arm=arm.name, metric="test_loss", title="Test loss") for arm in arms if arm.name in (CLEAN, NOISY)]
    for arm in (arm for arm in arms if arm.name == NOISY):
        shown += [Panel(arm=arm.name, metric=metric, title=title) for metric, title in OF_NOISY.items()]
    curved = [arm for arm in arms if arm.name in (CLEAN, NOISY, EQUAL_LOSS)]
    return (*shown, *(Panel(arm=arm.name, metric="lambda_max", title="λmax of the Hessian") for arm in curved))


def _design(arms: tuple[Arm, ...], n: int, budget: float | None, seeds: int, caption: str, num_train: int) -> Design:
    beyond = width_of(num_train * CLASSES, SIGNAL_LENGTH, CLASSES)
    return Design(
        seeds=tuple(range(seeds)),
        arms=arms,
        claims=claims({arm.name for arm in arms}, beyond, comparable=True),
        budget_core_seconds=budget,
        caption=f"{caption} {CAPTION}",
        probings=probings(arms, n, num_train),
        panels=panels(arms),
        data_varies=True,
    )


def _smoke() -> Design:
    data = DataSpec(name="mnist1d", num_train=1000, num_val=500, num_test=4000)
    train = TrainSpec(optimizer=SGD(lr=0.05), batch_size=50, epochs=150, schedule="constant")
    widths = around(SMOKE_THRESHOLD, (0.25, 0.5, 0.75, 1.0, 1.5, 4.0))
    return _design((signals(data, train, widths, WRONG),), 500, 60.0, 5, "MNIST-1D, shortened.", 1000)


def _signal_arms(shares: tuple[float, ...]) -> tuple[Arm, ...]:
    return tuple(signals(SIGNALS, ENDLESS, around(MNIST1D_THRESHOLD), share) for share in shares)


def _laptop() -> Design:
    arms = (published(), *_signal_arms((0.0, WRONG)), equal_loss((32, 64, 128, 256, 512, 1024)))
    return _design(arms, 1000, 3600.0, 5, "MNIST, 10,000 images, and MNIST-1D.", N_SIGNALS)


def _overnight() -> Design:
    images = DataSpec(name="cifar10", num_train=2000, label_noise=WRONG)
    channels = (1, 2, 3, 4, 5, 6, 8, 12, 16, 32)
    arms = (
        published(),
        *_signal_arms((0.0, 0.1, WRONG, 0.2)),
        equal_loss((32, 64, 128, 256, 512, 1024)),
        epochs(max(around(MNIST1D_THRESHOLD))),
        samples(round(MNIST1D_THRESHOLD / 2)),
        cnns(channels, images, 200, batch_norm=True),
        cnns(channels, images, 200, batch_norm=False),
    )
    return _design(arms, 1000, None, 10, "MNIST, MNIST-1D and CIFAR-10.", N_SIGNALS)


def _paper() -> Design:
    images = DataSpec(name="cifar10")
    train = TrainSpec(optimizer=SGD(lr=0.1), batch_size=128, epochs=60)
    models = {c: CNN(channels=c, batch_norm=False) for c in (4, 8, 16, 32, 64, 96)}
    levels = tuple(Level(value=c, spec=RunSpec(data=images, model=m, train=train)) for c, m in models.items())
    cnn = Arm(
        name=PUBLISHED_CNN,
        title="CIFAR-10, published protocol",
        note="Without BN. Levels are channels.",
        levels=levels,
    )
    return _design((published(), cnn), 1000, None, 5, "MNIST and CIFAR-10, the paper's protocol.", N_SIGNALS)


DESIGNS = Designs(
    {
        "smoke": _smoke,
        "laptop": _laptop,
        "overnight": _overnight,
        "paper": _paper,
    }
)
