"""How numbers are written."""

import math


def percent(value: float | None, digits: int = 2) -> str:
    """A fraction in percent.

    >>> percent(0.95442), percent(None)
    ('95.44', '–')
    """
    return "–" if _absent(value) else f"{100 * value:.{digits}f}"  # type: ignore[operator]


def points(value: float | None, digits: int = 2) -> str:
    """A difference of fractions in percentage points, with its sign.

    >>> points(-0.0123)
    '−1.23'
    """
    return "–" if _absent(value) else f"{100 * value:+.{digits}f}".replace("-", "−")  # type: ignore[operator]


def p_value(value: float | None) -> str:
    """A p value with the digits that matter.

    >>> p_value(0.00001), p_value(0.0421), p_value(None)
    ('< .001', '.042', '–')
    """
    if value is None or _absent(value):
        return "–"
    return "< .001" if value < 0.001 else f"{value:.3f}".lstrip("0") if value < 1 else "1"


def plain(value: float | None, digits: int = 3) -> str:
    """A number with a few significant digits."""
    return "–" if _absent(value) else f"{value:.{digits}g}"


def _absent(value: float | None) -> bool:
    return value is None or math.isnan(value)
