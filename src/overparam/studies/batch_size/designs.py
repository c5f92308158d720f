"""The study at each preset: data, model, arms, seeds, margins and budget."""

from collections.abc import Mapping

from overparam.specs import CNN, MLP, DataSpec
from overparam.studies.batch_size.arms import equal_epochs, equal_loss, equal_steps, full_batch, linear_lr, sgd
from overparam.studies.batch_size.claims import claims
from overparam.studies.study import Design, Designs, Level

PAPER_LR: Mapping[int, float] = {32: 0.005, 64: 0.0075, 128: 0.01, 256: 0.02, 512: 0.04, 1024: 0.08, 2048: 0.1}
SMOKE_LR: Mapping[int, float] = {8: 0.01, 32: 0.02, 128: 0.04, 1297: 0.1}
CAPTION = (
    "Class-balanced subset, the same for all seeds. A seed varies the initialization and the order of the examples."
)
CIFAR_SUBSET = DataSpec(name="cifar10", num_train=10_000)
FIRST_5000 = DataSpec(name="cifar10", num_train=5000, subset="first")


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
        budget_core_seconds=80.0,
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
    as_published = Level(value="full, 80 steps at lr 0.001", spec=sgd(few, model, 5000, 0.001, steps=80))
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


DESIGNS = Designs(
    {
        "smoke": _smoke,
        "laptop": _laptop,
        "overnight": _overnight,
        "paper": _paper,
    }
)
