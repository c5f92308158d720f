"""Arms that differ in the batch size, each holding another thing fixed."""

from collections.abc import Mapping

from overparam.specs import CNN, MLP, SGD, Adam, DataSpec, RunSpec, TrainSpec
from overparam.studies.study import Arm, Level

Rates = Mapping[int, float]  # batch size → learning rate
Model = MLP | CNN


def sgd(data: DataSpec, model: Model, batch_size: int, lr: float, **length: float | str) -> RunSpec:
    """A run with momentum SGD, up to its seed."""
    train = TrainSpec.model_validate({"optimizer": SGD(lr=lr), "batch_size": batch_size, **length})
    return RunSpec(data=data, model=model, train=train)


def levels(data: DataSpec, model: Model, lrs: Rates, **length: float | str) -> tuple[Level, ...]:
    """One level per batch size."""
    return tuple(Level(value=size, spec=sgd(data, model, size, lr, **length)) for size, lr in lrs.items())


def equal_epochs(data: DataSpec, model: Model, lrs: Rates, epochs: int, adam_size: int) -> Arm:
    """The paper's own comparison, with its Adam baseline (lr .001, cosine)."""
    train = TrainSpec(optimizer=Adam(lr=1e-3), batch_size=adam_size, epochs=epochs)
    adam = Level(value=f"adam-{adam_size}", spec=RunSpec(data=data, model=model, train=train))
    return Arm(
        name="equal_epochs",
        title="Equal epochs",
        note="The paper's comparison: the same epochs for all, learning rates that grow with the batch but not in "
        "proportion at the ends.",
        levels=(*levels(data, model, lrs, epochs=epochs), adam),
    )


def linear_lr(data: DataSpec, model: Model, lrs: Rates, epochs: int, anchor: int = 128) -> Arm:
    """Equal epochs under exact linear scaling, from the same rate at the anchor."""
    scaled = {size: lrs[anchor] * size / anchor for size in lrs}
    other = {size: lr for size, lr in scaled.items() if size == anchor or abs(lr / lrs[size] - 1) > 1e-9}
    return Arm(
        name="linear_lr",
        title="Linear learning rate",
        note="Equal epochs, learning rate exactly in proportion to the batch size; run where that differs, and at 128.",
        levels=levels(data, model, other, epochs=epochs),
    )


def equal_loss(data: DataSpec, model: Model, lrs: Rates, cap: int, pilot_epochs: Mapping[int, float]) -> Arm:
    """Stop every run at the same train loss, so that none is under-trained. `pilot_epochs` is for plans only."""
    length: dict[str, float | str] = {"epochs": cap, "until_train_loss": 0.05, "schedule": "constant"}
    stopped = levels(data, model, lrs, **length)
    shares = (pilot_epochs[size] / cap for size in lrs)
    return Arm(
        name="equal_loss",
        title="Equal train loss",
        note="Constant learning rate; every run stops at the same eval-mode train loss (± 10 %), or at its cap.",
        levels=tuple(
            level.model_copy(update={"expected_share": share}) for share, level in zip(shares, stopped, strict=True)
        ),
    )


def equal_steps(data: DataSpec, model: Model, lrs: Rates, steps: int) -> Arm:
    """The same number of updates for every batch size."""
    return Arm(
        name="equal_steps",
        title="Equal steps",
        note="The same number of updates at the learning rates of the first arm; large batches see more examples.",
        levels=levels(data, model, lrs, steps=steps),
    )


def full_batch(data: DataSpec, model: Model, small: tuple[int, float, int], steps: int, lrs: tuple[float, ...]) -> Arm:
    """Deterministic gradient descent, given as many steps as it needs, against a small batch on the same data."""
    size, lr, epochs = small
    assert data.num_train is not None
    full = [Level(value=f"full lr {rate:g}", spec=sgd(data, model, data.num_train, rate, steps=steps)) for rate in lrs]
    return Arm(
        name="full_batch",
        title="Full batch, fewer examples",
        note="On fewer examples than the other arms: a step of the full batch is a pass over all of them.",
        levels=(*levels(data, model, {size: lr}, epochs=epochs), *full),
    )
