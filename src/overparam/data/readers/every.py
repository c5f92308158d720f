"""The data sets that come with the package. A new one is a reader of its own and an entry of this list."""

from overparam.data.readers.digits import DIGITS
from overparam.data.readers.mnist1d import MNIST1D
from overparam.data.types import Embedded

EMBEDDED: dict[str, Embedded] = {each.name: each for each in (DIGITS, MNIST1D)}
