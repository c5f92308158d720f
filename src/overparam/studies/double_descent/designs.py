"""The study at each preset: arms of widths, and what is measured of their networks."""

from collections.abc import Iterable

from overparam.specs import (
    CNN,
    MLP,
    SGD,
    Arm,
    DataSpec,
    Design,
    Eigenvalues,
    Fitted,
    Level,
    Noise,
    Panel,
    Preset,
    Probing,
    RunSpec,
    Trace,
    TrainSpec,
)
from overparam.studies.double_descent.claims import CLEAN, CNN_ARM, EQUAL_LOSS, NOISY, PAPER, PUBLISHED, claims
from overparam.studies.double_descent.grid import MNIST1D_THRESHOLD, SMOKE_THRESHOLD, around, width_of

WRONG = 0.15
MNIST = DataSpec(name="mnist", num_train=10_000)
SIGNAL_LENGTH, CLASSES = 40, 10
CAPTION = (
    "The value of the last epoch. A seed varies the initialization, the order of the examples and the data: subset or "
    "sample, and which labels are wrong, the same at every width."
)


def _mlps(name: str, title: str, note: str, data: DataSpec, train: TrainSpec, widths: Iterable[int], depth: int) -> Arm:
    levels = (Level(level=w, spec=RunSpec(data=data, model=MLP(width=w, depth=depth), train=train)) for w in widths)
    return Arm(name=name, title=title, note=note, levels=tuple(levels))


def published() -> Arm:
    """The paper's own networks."""
    train = TrainSpec(optimizer=SGD(lr=0.05), batch_size=128, epochs=60)
    return _mlps(PUBLISHED, "MNIST, published protocol", "The published protocol.", MNIST, train, PAPER, 4)


def equal_loss(widths: Iterable[int]) -> Arm:
    """The same data and networks, all stopped at one train loss."""
    train = TrainSpec(optimizer=SGD(lr=0.05), batch_size=128, epochs=60, schedule="constant", until_train_loss=0.05)
    arm = _mlps(EQUAL_LOSS, "MNIST, equal train loss", "Stopped at train loss .05.", MNIST, train, widths, 4)
    return arm.model_copy(
        update={"levels": tuple(level.model_copy(update={"expected_share": 0.2}) for level in arm.levels)}
    )


def signals(data: DataSpec, train: TrainSpec, widths: Iterable[int], share: float) -> Arm:
    """MNIST-1D: small enough to train far beyond the threshold, and with as large a test set as wanted."""
    title = f"MNIST-1D, {share:.0%} wrong labels" if share else "MNIST-1D, clean labels"
    note = "Constant rate, no weight decay, no early stopping: each width is trained until it fits or cannot."
    noisy = data.model_copy(update={"label_noise": share})
    return _mlps(
        NOISY if share == WRONG else CLEAN if share == 0 else f"noisy_{share:g}", title, note, noisy, train, widths, 3
    )


def cnns(channels: Iterable[int], data: DataSpec, epochs: int, batch_norm: bool) -> Arm:
    """From one channel on, so that the threshold lies inside."""
    train = TrainSpec(optimizer=SGD(lr=0.02), batch_size=128, epochs=epochs, schedule="constant")
    models = {c: CNN(channels=c, batch_norm=batch_norm) for c in channels}
    return Arm(
        name=CNN_ARM if batch_norm else f"{CNN_ARM}_without_bn",
        title=f"CNN, 15 % wrong labels{'' if batch_norm else ', no BN'}",
        note="Levels are channels.",
        levels=tuple(Level(level=c, spec=RunSpec(data=data, model=m, train=train)) for c, m in models.items()),
    )


def probings(arms: tuple[Arm, ...], n: int) -> tuple[Probing, ...]:
    """Fit by label of all signals' runs; curvature along width there and at equal loss."""
    names = tuple(arm.name for arm in arms)
    curved = tuple(name for name in names if name in (CLEAN, NOISY, EQUAL_LOSS))
    matched = tuple(name for name in names if name == EQUAL_LOSS)
    found = [
        Probing(probe=Fitted(), arms=tuple(name for name in names if name != EQUAL_LOSS)),
        Probing(probe=Eigenvalues(num_examples=n), arms=curved),
    ]
    if matched:
        found.append(Probing(probe=Trace(num_examples=n), arms=matched))
        found.append(Probing(probe=Noise(num_examples=n, sigmas=(0.2,), scale="adaptive"), arms=matched))
    return tuple(found)


def panels(arms: tuple[Arm, ...]) -> tuple[Panel, ...]:
    """Test loss, which has no place in the figure of accuracies, and curvature."""
    shown = [Panel(arm=arm.name, metric="test_loss", title="Test loss") for arm in arms if arm.name in (CLEAN, NOISY)]
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
        probings=probings(arms, n),
        panels=panels(arms),
        data_varies=True,
    )


def _smoke() -> Design:
    data = DataSpec(name="mnist1d", num_train=1000, num_test=4000)
    train = TrainSpec(optimizer=SGD(lr=0.05), batch_size=50, epochs=150, schedule="constant")
    widths = around(SMOKE_THRESHOLD, (0.25, 0.5, 0.75, 1.0, 1.5, 4.0))
    return _design((signals(data, train, widths, WRONG),), 500, 60.0, 5, "MNIST-1D, shortened.", 1000)


def _signal_arms(shares: tuple[float, ...]) -> tuple[Arm, ...]:
    data = DataSpec(name="mnist1d", num_train=4000, num_test=12_000)
    train = TrainSpec(optimizer=SGD(lr=0.01), batch_size=100, epochs=500, schedule="constant")
    return tuple(signals(data, train, around(MNIST1D_THRESHOLD), share) for share in shares)


def _laptop() -> Design:
    arms = (published(), *_signal_arms((0.0, WRONG)), equal_loss((32, 64, 128, 256, 512, 1024)))
    return _design(arms, 1000, 3600.0, 5, "MNIST, 10,000 images, and MNIST-1D.", 4000)


def _overnight() -> Design:
    images = DataSpec(name="cifar10", num_train=2000, label_noise=WRONG)
    channels = (1, 2, 3, 4, 5, 6, 8, 12, 16, 32)
    arms = (
        published(),
        *_signal_arms((0.0, 0.1, WRONG, 0.2)),
        equal_loss((32, 64, 128, 256, 512, 1024)),
        cnns(channels, images, 200, batch_norm=True),
        cnns(channels, images, 200, batch_norm=False),
    )
    return _design(arms, 1000, None, 10, "MNIST, MNIST-1D and CIFAR-10.", 4000)


def _paper() -> Design:
    images = DataSpec(name="cifar10")
    train = TrainSpec(optimizer=SGD(lr=0.1), batch_size=128, epochs=60)
    models = {c: CNN(channels=c, batch_norm=False) for c in (4, 8, 16, 32, 64, 96)}
    levels = tuple(Level(level=c, spec=RunSpec(data=images, model=m, train=train)) for c, m in models.items())
    cnn = Arm(
        name="published_cnn",
        title="CIFAR-10, published protocol",
        note="Without BN. Levels are channels.",
        levels=levels,
    )
    return _design((published(), cnn), 1000, None, 5, "MNIST and CIFAR-10, the paper's protocol.", 4000)


DESIGNS: dict[Preset, Design] = {
    "smoke": _smoke(),
    "laptop": _laptop(),
    "overnight": _overnight(),
    "paper": _paper(),
}
