"""overparam: why do neural networks with more parameters than data generalize?

The public names are listed in `__init__.pyi`, which type checkers read. They are loaded on first use, so that importing
the package costs nothing.
"""

from functools import cache
from importlib import import_module
from typing import Any


@cache
def _homes() -> dict[str, str]:
    """Public names and the modules that they are taken from: lines `from HOME import NAME as NAME` of the list."""
    with open(f"{__file__}i", encoding="utf-8") as stream:
        imports = [line.split() for line in stream if line.startswith("from ")]
    return {words[3]: words[1] for words in imports}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(_homes())
    home = _homes().get(name)
    if home is None:
        raise AttributeError(f"module 'overparam' has no attribute {name!r}")
    return import_module(f"{home}.{name}") if home == __name__ else getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_homes()})
