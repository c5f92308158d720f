"""What is known of named data sets without reading them."""

from collections.abc import Mapping

# Sizes of the training pools whose size is known without reading them: batch ≥ n can be normalized to "full".
KNOWN_NUM_TRAIN: Mapping[str, int] = {"digits": 1297, "mnist1d": 4000, "mnist": 60_000, "cifar10": 50_000}

Moments = tuple[tuple[float, ...], tuple[float, ...]]
# Published normalization constants, on pixels in [0, 1]; other data sets get those of their training pool.
PUBLISHED: dict[str, Moments] = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}
