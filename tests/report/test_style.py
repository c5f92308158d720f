"""Axes and looks that all figures share."""

import pytest
from matplotlib.figure import Figure

from overparam.report.figures.style import log_scale, looks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.5, 2000.0, ["1", "10", "100", "1000"]),
        (0.02, 2.0, ["0.03", "0.1", "0.3", "1"]),
        (60.0, 700.0, ["100", "200", "500"]),
        (180.0, 550.0, ["200", "300", "400", "500"]),
        (1.1, 1.4, ["1.1", "1.2", "1.3", "1.4"]),
    ],
)
def test_log_axes_have_several_plain_numbers(low: float, high: float, expected: list[str]) -> None:
    axes = Figure().subplots()
    log_scale(axes, "y")
    axes.set_ylim(low, high)
    shown = [
        label.get_text()
        for place, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        if low <= place <= high * (1 + 1e-9)
    ]
    assert shown == expected


def test_twenty_names_look_different() -> None:
    found = looks([str(index) for index in range(20)])
    assert len({(look["color"], look["marker"]) for look in found.values()}) == 20
