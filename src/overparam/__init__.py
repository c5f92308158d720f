"""overparam: why do networks with more parameters than data generalize?

The public names below are loaded on first use, so that importing the package is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from overparam.version import __version__ as __version__

if TYPE_CHECKING:
    from overparam.execute import Run as Run
    from overparam.execute import train as train
    from overparam.execution import Execution as Execution
    from overparam.laboratory import Results as Results
    from overparam.laboratory import run as run
    from overparam.specs import CNN as CNN
    from overparam.specs import MLP as MLP
    from overparam.specs import SGD as SGD
    from overparam.specs import Adam as Adam
    from overparam.specs import DataSpec as DataSpec
    from overparam.specs import Dense as Dense
    from overparam.specs import Fresh as Fresh
    from overparam.specs import Magnitude as Magnitude
    from overparam.specs import RandomMask as RandomMask
    from overparam.specs import Rewind as Rewind
    from overparam.specs import RunSpec as RunSpec
    from overparam.specs import ShuffledMask as ShuffledMask
    from overparam.specs import TrainSpec as TrainSpec
    from overparam.training.observer import Observer as Observer

_HOMES = {
    "overparam.specs": (
        *("Adam", "CNN", "DataSpec", "Dense", "Fresh", "MLP", "Magnitude", "RandomMask", "Rewind"),
        *("RunSpec", "SGD", "ShuffledMask", "TrainSpec"),
    ),
    "overparam.execute": ("Run", "train"),
    "overparam.execution": ("Execution",),
    "overparam.training.observer": ("Observer",),
    "overparam.laboratory": ("Results", "run"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'overparam' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
