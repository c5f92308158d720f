"""The interpolation thresholds that the widths of `double_descent` lie around, by bisection on pilot seeds.

The narrowest MLP of depth 3 whose train accuracy on the given labels, mean of two seeds, is at least 99 %, as the arm
with 15 % wrong labels trains it; the seeds are none of the study's, and no test example is looked at.

    python docs/results/threshold.py
"""

from statistics import mean

import overparam as op
from overparam.studies.double_descent import DOUBLE_DESCENT
from overparam.studies.double_descent.claims import FITTED, NOISY
from overparam.studies.double_descent.grid import MNIST1D_THRESHOLD, SMOKE_THRESHOLD
from overparam.studies.study import Preset

PILOTS = (100, 101)


def fitted(spec: op.RunSpec, width: int) -> float:
    """Mean train accuracy of the pilots at a width."""
    model = spec.model.model_copy(update={"width": width})
    data = [spec.data.model_copy(update={"data_seed": seed}) for seed in PILOTS]
    specs = [spec.model_copy(update={"model": model, "data": d, "seed": d.data_seed}) for d in data]
    accuracy: float = mean(op.train(each).train_accuracy for each in specs)
    print(f"  width {width}: {accuracy:.2%} of the given labels")
    return accuracy


def threshold(spec: op.RunSpec, low: int = 4, high: int = 128) -> int:
    """Smallest width that fits, between one that does not and one that does."""
    while high - low > 1:
        middle = round((low * high) ** 0.5)
        middle = min(max(middle, low + 1), high - 1)
        low, high = (low, middle) if fitted(spec, middle) >= FITTED else (middle, high)
    return high


def main() -> None:
    thresholds: dict[Preset, int] = {"smoke": SMOKE_THRESHOLD, "laptop": MNIST1D_THRESHOLD}
    for preset, frozen in thresholds.items():
        (arm,) = [arm for arm in DOUBLE_DESCENT.designs[preset].arms if arm.name == NOISY]
        print(f"{preset}: {threshold(arm.levels[0].spec)}, frozen in the study: {frozen}")


if __name__ == "__main__":
    main()
