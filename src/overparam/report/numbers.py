"""How numbers are written."""

import math
import re

LOSSES = ("train_loss", "test_loss")


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
    """A number with a few significant digits.

    >>> plain(-0.12345)
    '−0.123'
    """
    return "–" if _absent(value) else f"{value:.{digits}g}".replace("-", "−")


def effect(value: float | None, metric: str) -> str:
    """A difference in the unit of its metric: percentage points for accuracies and gaps, plain for losses.

    >>> effect(0.012, "test_accuracy"), effect(0.012, "test_loss")
    ('+1.20', '+0.0120')
    """
    if metric not in LOSSES or _absent(value):
        return points(value)
    return f"{value:+#.3g}".replace("-", "−")


def size(value: float | None, metric: str) -> str:
    """A margin or a standard error: as `effect`, without a sign.

    >>> size(0.02, "gap"), size(0.02, "test_loss")
    ('2.00', '0.0200')
    """
    return effect(value, metric).lstrip("+")


def unit(metric: str, kind: str) -> str:
    """What an effect is counted in.

    >>> unit("test_accuracy", "slope"), unit("test_loss", "difference")
    ('points per doubling', 'loss')
    """
    return ("loss" if metric in LOSSES else "points") + (" per doubling" if kind == "slope" else "")


def sentence(text: str) -> str:
    """The text with a capital first letter; the rest stays as it is.

    >>> sentence("the TOST says so")
    'The TOST says so'
    """
    return text[:1].upper() + text[1:]


def stem(name: str) -> str:
    """A name as part of a file name or an anchor.

    >>> stem("batch_size"), stem("../small beats large")
    ('batch_size', 'small-beats-large')
    """
    return re.sub(r"[^\w-]+", "-", name).strip("-")


def _absent(value: float | None) -> bool:
    return value is None or math.isnan(value)
