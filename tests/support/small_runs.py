"""A run of a second or less on the digits, and what lies in a store."""

from pathlib import Path

from overparam.specs import CNN, SGD, DataSpec, RunSpec, TrainSpec

DATA = DataSpec(name="digits", num_train=200, num_test=100)


def spec(**fields: object) -> RunSpec:
    base = {
        "data": DATA,
        "model": CNN(channels=2),
        "train": TrainSpec(optimizer=SGD(lr=0.05), batch_size=32, epochs=4),
    }
    return RunSpec.model_validate(base | fields)


def files(store: Path) -> dict[str, int]:
    """Every file of the runs in a store, and when it was last written: what is computed again is written again."""
    return {str(file): file.stat().st_mtime_ns for file in (store / "runs").rglob("*") if file.is_file()}


WILD = TrainSpec(optimizer=SGD(lr=1e8), batch_size=32, epochs=4)
