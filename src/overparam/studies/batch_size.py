"""Does a small SGD batch generalize better than a large one, and does that survive the controls?"""

from collections.abc import Mapping

from overparam.specs import CNN, MLP, Claim, DataSpec, Design, Difference, Level, Metric, Point, Preset, Slope, Study
from overparam.studies.arms import equal_epochs, equal_loss, equal_steps, full_batch, linear_lr, sgd

PAPER_LR: Mapping[int, float] = {32: 0.005, 64: 0.0075, 128: 0.01, 256: 0.02, 512: 0.04, 1024: 0.08, 2048: 0.1}
SMOKE_LR: Mapping[int, float] = {8: 0.01, 32: 0.02, 128: 0.04, 1297: 0.1}
CAPTION = (
    "Class-balanced subset, the same for all seeds. A seed varies the initialization and the order of the examples."
)
CIFAR_SUBSET = DataSpec(name="cifar10", num_train=10_000)
FIRST_5000 = DataSpec(name="cifar10", num_train=5000, subset="first")


def versus(arm: str, a: float | str, b: float | str, metric: Metric = "test_accuracy") -> Difference:
    """Level a minus level b within one arm."""
    return Difference(metric=metric, a=Point(arm=arm, level=a), b=Point(arm=arm, level=b))


def claims(
    small: int,
    large: int,
    loss_large: int,
    adam: str,
    adam_twin: int,
    margin: float,
    sd: float,
    comparable: bool = False,
) -> tuple[Claim, ...]:
    """Five confirmatory claims and one descriptive. Accuracies are fractions: a margin of .01 is a point.

    `comparable`: the runs follow the paper's protocol, so that its values can be set against the intervals.
    """
    return (
        *_at_equal_epochs(small, large, margin, sd, comparable),
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
            sentence=f"{adam.capitalize()} and SGD at batch {adam_twin} reach equivalent test accuracy.",
            estimand=versus("equal_epochs", adam, adam_twin),
            test="equivalence",
            margin=margin,
            pilot_sd=sd,
            paper_value=-0.0005,
            comparable=comparable,
            paper_note="85.47 % against 85.52 %",
        ),
        Claim(
            name="full batch fits as well",
            sentence="Given enough steps, full-batch gradient descent reaches the training accuracy of a small batch.",
            estimand=versus("full_batch", "full lr 0.1", small, "train_accuracy"),
            test="noninferiority",
            margin=0.02,
            pilot_sd=0.01,
            paper_value=-0.633,
            paper_note="36.7 % train accuracy after 80 steps at lr .001 on 5,000 samples, against 100 %",
        ),
    )


def _at_equal_epochs(small: int, large: int, margin: float, sd: float, comparable: bool) -> tuple[Claim, ...]:
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
            comparable=comparable,
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
            comparable=comparable,
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
            cnn.model_copy(update={"name": "cnn_equal_epochs", "title": "CNN, equal epochs"}),
        ),
        claims=claims(8, 128, 128, "adam-32", 8, margin=0.02, sd=0.01),
        budget_core_seconds=100.0,
        caption=f"Digits 8×8. {CAPTION}",
    )


def _laptop() -> Design:
    model, data, lrs = CNN(channels=8), CIFAR_SUBSET, {size: PAPER_LR[size] for size in (32, 128, 512, 1024, 2048)}
    return Design(
        seeds=(0, 1, 2, 3, 4),
        arms=(
            equal_epochs(data, model, lrs, 20, 128),
            linear_lr(data, model, lrs, 20),
            equal_loss(data, model, {32: 0.005, 1024: 0.08}, cap=40, pilot_epochs={32: 23, 1024: 30}),
            full_batch(DataSpec(name="cifar10", num_train=1000), model, (32, 0.005, 30), 150, (0.1, 0.05)),
        ),
        claims=claims(32, 2048, 1024, "adam-128", 32, margin=0.01, sd=0.008),
        budget_core_seconds=7000.0,
        caption=f"CIFAR-10. {CAPTION}",
    )


def _overnight() -> Design:
    model, data, lrs = CNN(channels=8), CIFAR_SUBSET, {size: PAPER_LR[size] for size in (32, 128, 512, 1024)}
    return Design(
        seeds=tuple(range(10)),
        arms=(
            equal_epochs(data, model, PAPER_LR, 40, 128),
            linear_lr(data, model, PAPER_LR, 40),
            equal_loss(data, model, lrs, cap=80, pilot_epochs={32: 23, 128: 25, 512: 28, 1024: 30}),
            equal_steps(data, model, PAPER_LR, 3160),
            full_batch(DataSpec(name="cifar10", num_train=2000), model, (32, 0.005, 40), 600, (0.1, 0.05)),
        ),
        claims=claims(32, 2048, 1024, "adam-128", 32, margin=0.01, sd=0.008),
        caption=f"CIFAR-10. {CAPTION}",
    )


def _paper() -> Design:
    model, data, few = CNN(channels=32), DataSpec(name="cifar10"), FIRST_5000
    full = full_batch(few, model, (32, 0.005, 80), 1000, (0.1,))
    as_published = Level(level="full, 80 steps at lr 0.001", spec=sgd(few, model, 5000, 0.001, steps=80))
    return Design(
        seeds=(0, 1, 2, 3, 4),
        arms=(
            equal_epochs(data, model, PAPER_LR, 80, 128),
            linear_lr(data, model, PAPER_LR, 80),
            equal_loss(data, model, {32: 0.005, 1024: 0.08}, cap=80, pilot_epochs={32: 23, 1024: 30}),
            full.model_copy(update={"levels": (*full.levels, as_published)}),
        ),
        claims=claims(32, 2048, 1024, "adam-128", 32, margin=0.005, sd=0.003, comparable=True),
        caption="CIFAR-10, the paper's protocol. A seed varies the initialization and the order of the examples.",
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
