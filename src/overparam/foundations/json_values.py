"""Numbers for JSON, which has no NaN and no infinity."""

import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """The same record in plain types, with numbers that are not finite as null.

    >>> finite({"loss": math.nan, "levels": (1, 2.5)})
    {'loss': None, 'levels': [1, 2.5]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): finite(each) for name, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, (list, tuple)) else value


def number(value: float | None) -> float:
    """A stored value: NaN is kept as null."""
    return math.nan if value is None else value
