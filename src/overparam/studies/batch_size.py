"""Does a small SGD batch generalize better than a large one, and does that survive the controls?"""

from collections.abc import Mapping

from overparam.specs import (
    CNN,
    MLP,
    SGD,
    Adam,
    Arm,
    Claim,
    DataSpec,
    Design,
    Difference,
    Level,
    Metric,
    Point,
    Preset,
    RunSpec,
    Slope,
    Study,
    TrainSpec,
)

PAPER_LR: Mapping[int, float] = {32: 0.005, 64: 0.0075, 128: 0.01, 256: 0.02, 512: 0.04, 1024: 0.08, 2048: 0.1}
SMOKE_LR: Mapping[int, float] = {8: 0.01, 32: 0.02, 128: 0.04, 1297: 0.1}


def sgd(data: DataSpec, model: MLP | CNN, batch_size: int, lr: float, **length: float | str) -> RunSpec:
    """A run with momentum SGD, up to its seed."""
    train = TrainSpec.model_validate({"optimizer": SGD(lr=lr), "batch_size": batch_size, **length})
    return RunSpec(data=data, model=model, train=train)


def levels(data: DataSpec, model: MLP | CNN, lrs: Mapping[int, float], **length: float | str) -> tuple[Level, ...]:
    """One level per batch size."""
    return tuple(Level(level=size, spec=sgd(data, model, size, lr, **length)) for size, lr in lrs.items())


def adam(data: DataSpec, model: MLP | CNN, batch_size: int, epochs: int) -> Level:
    """The paper's Adam baseline: lr .001, cosine."""
    train = TrainSpec(optimizer=Adam(lr=1e-3), batch_size=batch_size, epochs=epochs)
    return Level(level=f"adam-{batch_size}", spec=RunSpec(data=data, model=model, train=train))


def linear(lrs: Mapping[int, float], anchor: int = 128) -> dict[int, float]:
    """The same rate at the anchor, elsewhere in proportion to the batch size; only where that differs."""
    scaled = {size: lrs[anchor] * size / anchor for size in lrs}
    return {size: lr for size, lr in scaled.items() if size == anchor or abs(lr / lrs[size] - 1) > 1e-9}


def full_batch(
    data: DataSpec, model: MLP | CNN, small: tuple[int, float, int], steps: int, lrs: tuple[float, ...]
) -> Arm:
    """Deterministic gradient descent, given as many steps as it needs, against a small batch on the same data."""
    size, lr, epochs = small
    assert data.num_train is not None
    full = [Level(level=f"full lr {rate:g}", spec=sgd(data, model, data.num_train, rate, steps=steps)) for rate in lrs]
    return Arm(
        name="full_batch",
        title=f"Full batch, n = {data.num_train:,}, {steps} steps",
        note=f"A step is a pass over all {data.num_train:,} examples; the small batch takes {epochs} epochs on them.",
        levels=(*levels(data, model, {size: lr}, epochs=epochs), *full),
    )


def equal_loss(
    data: DataSpec, model: MLP | CNN, lrs: Mapping[int, float], cap: int, pilot_epochs: Mapping[int, float]
) -> Arm:
    """Stop every run at the same train loss, so that none is under-trained. `pilot_epochs` is for plans only."""
    length: dict[str, float | str] = {"epochs": cap, "until_train_loss": 0.05, "schedule": "constant"}
    stopped = levels(data, model, lrs, **length)
    return Arm(
        name="equal_loss",
        title="Equal train loss .05",
        note=f"Constant learning rate, stopped at an eval-mode train loss of .05 ± 10 %, at most {cap} epochs.",
        levels=tuple(
            level.model_copy(update={"expected_share": pilot_epochs[size] / cap})
            for size, level in zip(lrs, stopped, strict=True)
        ),
    )


def equal_steps(data: DataSpec, model: MLP | CNN, lrs: Mapping[int, float], steps: int) -> Arm:
    """The same number of updates for every batch size."""
    return Arm(
        name="equal_steps",
        title=f"Equal steps, {steps:,}",
        note="The same number of updates at the learning rates of the first arm; large batches see more examples.",
        levels=levels(data, model, lrs, steps=steps),
    )


def equal_epochs(data: DataSpec, model: MLP | CNN, lrs: Mapping[int, float], epochs: int, adam_size: int) -> Arm:
    """The paper's own comparison."""
    return Arm(
        name="equal_epochs",
        title=f"Equal epochs, {epochs}",
        note="The paper's comparison: the same epochs for all, its table of learning rates (not linear at the ends).",
        levels=(*levels(data, model, lrs, epochs=epochs), adam(data, model, adam_size, epochs)),
    )


def linear_lr(data: DataSpec, model: MLP | CNN, lrs: Mapping[int, float], epochs: int) -> Arm:
    """Equal epochs under exact linear scaling."""
    return Arm(
        name="linear_lr",
        title="Linear learning rate",
        note="Equal epochs, learning rate exactly in proportion to the batch size; run where that differs, and at 128.",
        levels=levels(data, model, linear(lrs), epochs=epochs),
    )


def versus(arm: str, a: float | str, b: float | str, metric: Metric = "test_accuracy") -> Difference:
    """Level a minus level b within one arm."""
    return Difference(metric=metric, a=Point(arm=arm, level=a), b=Point(arm=arm, level=b))


def claims(
    small: int, large: int, loss_large: int, adam_level: str, adam_twin: int, full: str, margin: float, sd: float
) -> tuple[Claim, ...]:
    """Five confirmatory claims and one descriptive. Accuracies are fractions: a margin of .01 is a point."""
    return (
        *_at_equal_epochs(small, large, margin, sd),
        Claim(
            name="small beats large at equal train loss",
            sentence=f"Stopped at the same train loss, batch {small} still tests better than batch {loss_large}.",
            estimand=versus("equal_loss", small, loss_large),
            test="superiority",
            margin=margin,
            pilot_sd=sd,
            paper_note="not measured",
        ),
        Claim(
            name="Adam matches small-batch SGD",
            sentence=f"{adam_level.capitalize()} and SGD at batch {adam_twin} reach equivalent test accuracy.",
            estimand=versus("equal_epochs", adam_level, adam_twin),
            test="equivalence",
            margin=margin,
            pilot_sd=sd,
            paper_value=-0.0005,
            paper_note="85.47 % against 85.52 %",
        ),
        Claim(
            name="full batch fits as well",
            sentence="Given enough steps, full-batch gradient descent reaches the training accuracy of a small batch.",
            estimand=versus("full_batch", full, small, "train_accuracy"),
            test="noninferiority",
            margin=0.02,
            pilot_sd=0.01,
            paper_value=-0.633,
            paper_note="36.7 % train accuracy after 80 steps at lr .001 on 5,000 samples, against 100 %",
        ),
    )


def _at_equal_epochs(small: int, large: int, margin: float, sd: float) -> tuple[Claim, ...]:
    """The paper's two claims, and the first of them under a linearly scaled learning rate."""
    return (
        Claim(
            name="small beats large at equal epochs",
            sentence=f"At equal epochs, batch {small} reaches a higher test accuracy than batch {large}.",
            estimand=versus("equal_epochs", small, large),
            test="superiority",
            margin=margin,
            pilot_sd=sd,
            paper_value=0.0225,
            paper_note="85.52 % at 32 against 83.27 % at 2048; CNN c = 32, all of CIFAR-10, 80 epochs, 3 seeds",
        ),
        Claim(
            name="falling trend",
            sentence="At equal epochs, test accuracy falls with every doubling of the batch size.",
            estimand=Slope(metric="test_accuracy", arm="equal_epochs"),
            test="superiority",
            direction="less",
            margin=margin / 4,
            pilot_sd=sd / 4,
            paper_value=-0.0035,
            paper_note="least-squares slope of the paper's seven means; they are not monotone",
        ),
        Claim(
            name="small beats large under linear scaling",
            sentence=f"With a linearly scaled learning rate, batch {small} still beats batch {large} at equal epochs.",
            estimand=versus("linear_lr", small, large),
            test="superiority",
            margin=margin,
            pilot_sd=sd,
            confirmatory=False,
        ),
    )


def _smoke() -> Design:
    data, few = DataSpec(name="digits"), DataSpec(name="digits", num_train=500)
    model = MLP(width=32)
    cnn = equal_epochs(data, CNN(channels=4), {8: 0.01, 128: 0.04}, 3, 32)
    return Design(
        seeds=(0, 1, 2, 3, 4),
        arms=(
            equal_epochs(data, model, SMOKE_LR, 25, 32),
            linear_lr(data, model, SMOKE_LR, 25),
            equal_loss(data, model, {8: 0.01, 128: 0.04}, cap=60, pilot_epochs={8: 6, 128: 14}),
            equal_steps(data, model, SMOKE_LR, 1000),
            full_batch(few, model, (8, 0.01, 25), 400, (0.1, 0.05)),
            cnn.model_copy(update={"name": "cnn_equal_epochs", "title": "CNN c = 4, equal epochs, 3"}),
        ),
        claims=claims(8, 128, 128, "adam-32", 8, "full lr 0.1", margin=0.02, sd=0.01),
        budget_core_seconds=100.0,
        caption="Digits 8×8, 1,297 training images. A seed varies the initialization and the order of the examples.",
    )


def _cifar(model: CNN, num_train: int | None, sizes: tuple[int, ...], epochs: int) -> tuple[Arm, Arm]:
    data, lrs = DataSpec(name="cifar10", num_train=num_train), {size: PAPER_LR[size] for size in sizes}
    return equal_epochs(data, model, lrs, epochs, 128), linear_lr(data, model, lrs, epochs)


def _laptop() -> Design:
    model, data = CNN(channels=8), DataSpec(name="cifar10", num_train=10_000)
    first, second = _cifar(model, 10_000, (32, 128, 512, 1024, 2048), 20)
    return Design(
        seeds=(0, 1, 2, 3, 4),
        arms=(
            first,
            second,
            equal_loss(data, model, {32: 0.005, 1024: 0.08}, cap=40, pilot_epochs={32: 23, 1024: 30}),
            full_batch(DataSpec(name="cifar10", num_train=1000), model, (32, 0.005, 30), 150, (0.1, 0.05)),
        ),
        claims=claims(32, 2048, 1024, "adam-128", 32, "full lr 0.1", margin=0.01, sd=0.008),
        budget_core_seconds=7000.0,
        caption="10,000 CIFAR-10 images, class-balanced, the same for all seeds. A seed varies init and order.",
    )


def _overnight() -> Design:
    model, data = CNN(channels=8), DataSpec(name="cifar10", num_train=10_000)
    lrs = dict(PAPER_LR)
    first, second = _cifar(model, 10_000, tuple(lrs), 40)
    return Design(
        seeds=tuple(range(10)),
        arms=(
            first,
            second,
            equal_loss(
                data,
                model,
                {size: lrs[size] for size in (32, 128, 512, 1024)},
                cap=80,
                pilot_epochs={32: 23, 128: 25, 512: 28, 1024: 30},
            ),
            equal_steps(data, model, lrs, 3160),
            full_batch(DataSpec(name="cifar10", num_train=2000), model, (32, 0.005, 40), 600, (0.1, 0.05)),
        ),
        claims=claims(32, 2048, 1024, "adam-128", 32, "full lr 0.1", margin=0.01, sd=0.008),
        caption="10,000 CIFAR-10 images, class-balanced, the same for all seeds. A seed varies init and order.",
    )


def _paper() -> Design:
    model, data = CNN(channels=32), DataSpec(name="cifar10")
    lrs = dict(PAPER_LR)
    first, second = _cifar(model, None, tuple(lrs), 80)
    few = DataSpec(name="cifar10", num_train=5000, subset="first")
    return Design(
        seeds=(0, 1, 2, 3, 4),
        arms=(
            first,
            second,
            equal_loss(data, model, {32: 0.005, 1024: 0.08}, cap=80, pilot_epochs={32: 23, 1024: 30}),
            full_batch(few, model, (32, 0.005, 80), 1000, (0.1, 0.001)),
        ),
        claims=claims(32, 2048, 1024, "adam-128", 32, "full lr 0.1", margin=0.005, sd=0.003),
        caption="All of CIFAR-10, the paper's protocol. A seed varies init and order.",
    )


DESIGNS: dict[Preset, Design] = {
    "smoke": _smoke(),
    "laptop": _laptop(),
    "overnight": _overnight(),
    "paper": _paper(),
}

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
