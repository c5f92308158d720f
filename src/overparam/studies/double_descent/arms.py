"""Arms of widths, and of what else moves the threshold past a network."""

from collections.abc import Iterable

from overparam.specs import CNN, MLP, SGD, DataSpec, RunSpec, TrainSpec
from overparam.studies.double_descent.claims import CLEAN, CNN_ARM, EPOCHS, EQUAL_LOSS, NOISY, PAPER, PUBLISHED, SAMPLES
from overparam.studies.study import Arm, Level

WRONG = 0.15
N_SIGNALS, N_VAL = 4000, 1000  # validation labels are all right; only the early-stopped value looks at them
SIGNALS = DataSpec(name="mnist1d", num_train=N_SIGNALS, num_val=N_VAL, num_test=12_000)
ENDLESS = TrainSpec(optimizer=SGD(lr=0.01), batch_size=100, epochs=500, schedule="constant")
MNIST = DataSpec(name="mnist", num_train=10_000)


def _mlps(name: str, title: str, note: str, data: DataSpec, train: TrainSpec, widths: Iterable[int], depth: int) -> Arm:
    levels = (Level(value=w, spec=RunSpec(data=data, model=MLP(width=w, depth=depth), train=train)) for w in widths)
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


def epochs(width: int) -> Arm:
    """The rate is constant, so a run of e epochs is the first e epochs of a longer one."""
    spec = RunSpec(
        data=SIGNALS.model_copy(update={"label_noise": WRONG}), model=MLP(width=width, depth=3), train=ENDLESS
    )
    lengths = {e: spec.train.model_copy(update={"epochs": e}) for e in (2, 5, 10, 20, 40, 80, 120, 200, 300, 500)}
    levels = tuple(Level(value=e, spec=spec.model_copy(update={"train": train})) for e, train in lengths.items())
    note = f"Levels are epochs, the width is {width}."
    return Arm(name=EPOCHS, title="MNIST-1D along training", note=note, levels=levels)


def samples(width: int) -> Arm:
    """More examples move the threshold past the width; fewer are the first of more, all from a pool of one size."""
    data = SIGNALS.model_copy(update={"label_noise": WRONG, "num_val": 0})
    sizes = {n: data.model_copy(update={"num_train": n}) for n in (250, 500, 1000, 1400, 1700, 2000, 2500, 3000, 4000)}
    model = MLP(width=width, depth=3)
    levels = tuple(Level(value=n, spec=RunSpec(data=d, model=model, train=ENDLESS)) for n, d in sizes.items())
    note = f"Levels are training examples, the width is {width}."
    return Arm(name=SAMPLES, title="MNIST-1D by sample size", note=note, levels=levels)


def cnns(channels: Iterable[int], data: DataSpec, epochs: int, batch_norm: bool) -> Arm:
    """From one channel on, so that the threshold lies inside."""
    train = TrainSpec(optimizer=SGD(lr=0.02), batch_size=128, epochs=epochs, schedule="constant")
    models = {c: CNN(channels=c, batch_norm=batch_norm) for c in channels}
    return Arm(
        name=CNN_ARM if batch_norm else f"{CNN_ARM}_without_bn",
        title=f"CNN, 15 % wrong labels{'' if batch_norm else ', no BN'}",
        note="Levels are channels.",
        levels=tuple(Level(value=c, spec=RunSpec(data=data, model=m, train=train)) for c, m in models.items()),
    )
