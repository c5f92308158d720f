"""How numbers, their units and names are written for people and for files."""

import math
import re

from overparam.claims.estimand import AnyEstimand, Concordance, Difference, Every, Mean, Peak, PeakPlace, Slope

# "points", "loss", "plain", these also "per doubling"; "factor", "exponent", "doublings", "Kendall's τ"; of a mean "%",
# "mean loss" and "mean"
Unit = str
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


def unit(estimand: AnyEstimand) -> Unit:
    """What an effect is counted in.

    >>> unit(Slope(metric="test_accuracy", arm="a"))
    'points per doubling'
    """
    match estimand:
        case Concordance():
            return "Kendall's τ"
        case Every(parts=parts):
            return unit(parts[0])
        case Difference(scale="log"):
            return "factor"
        case Slope(scale="log"):
            return "exponent"
        case Mean(metric=metric):
            return _of_mean(metric)
        case Difference(metric=metric) | Peak(metric=metric):
            return _of_metric(metric)
        case PeakPlace():
            return "doublings"
        case Slope(metric=metric):
            return f"{_of_metric(metric)} per doubling".removeprefix("plain ")


def _of_metric(metric: str) -> Unit:
    """Accuracies are fractions, whichever probe they come from."""
    fraction = metric == "gap" or metric.endswith("accuracy")
    return "points" if fraction else "loss" if metric in LOSSES else "plain"


def _of_mean(metric: str) -> Unit:
    """A mean is no difference: its unit is one that is written without a sign; a gap is a difference itself."""
    mean = {"points": "%", "loss": "mean loss", "plain": "mean"}[_of_metric(metric)]
    return "points" if metric == "gap" else mean


def averaged(estimand: AnyEstimand) -> str:
    """Whose mean over seeds an interval is of.

    >>> averaged(Slope(metric="loss", arm="a", scale="log"))
    'exponent fitted to each seed'
    """
    match estimand:
        case Concordance():
            return "jackknife pseudo-values of τ-b"
        case Every():
            return "paired difference of the part that is shown"  # the weakest or the most adverse: caveats say which
        case Slope(scale=scale):
            return f"{'exponent' if scale == 'log' else 'slope'} fitted to each seed"
        case Peak():
            return "weaker side of the peak, rise or fall, in each seed, between levels that the other seeds chose"
        case PeakPlace():
            return "doublings of level to the peak of each seed"
        case Mean():
            return "value of each seed"
        case Difference():
            return "paired difference"


def effect(value: float | None, unit: Unit) -> str:
    """An effect in its unit; logarithms of ratios are written as factors, means without a sign.

    >>> effect(0.012, "points"), effect(0.012, "loss"), effect(math.log(2.0), "factor")
    ('+1.20', '+0.0120', '×2.00')
    >>> effect(0.9012, "%"), effect(2.0, "mean"), effect(-0.5, "exponent")
    ('90.12', '2.00', '−0.500')
    """
    if _absent(value):
        return "–"
    assert value is not None
    if unit == "factor":
        return f"×{math.exp(value):#.3g}" if abs(value) < 30 else f"×e^{value:.0f}".replace("-", "−")
    if unit.startswith("points"):
        return points(value)
    if unit == "%":
        return percent(value).replace("-", "−")
    return f"{value:{'' if unit.startswith('mean') else '+'}#.3g}".replace("-", "−")


def size(value: float | None, unit: Unit) -> str:
    """A margin or a standard error: as `effect`, without a sign.

    >>> size(0.02, "points"), size(0.02, "loss")
    ('2.00', '0.0200')
    """
    return effect(value, unit).lstrip("+")


def sentence(text: str) -> str:
    """The text with a capital first letter; the rest stays as it is.

    >>> sentence("the TOST says so")
    'The TOST says so'
    """
    return text[:1].upper() + text[1:]


def stem(name: str) -> str:
    """A name as part of a file name or an anchor; a fixed word for a name of signs only.

    >>> stem("batch_size"), stem("../small beats large"), stem("<>")
    ('batch_size', 'small-beats-large', 'study')
    """
    return re.sub(r"[^\w-]+", "-", name).strip("-") or "study"


def _absent(value: float | None) -> bool:
    return value is None or math.isnan(value)
