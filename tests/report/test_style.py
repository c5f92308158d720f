"""Axes and looks that all figures share."""

import matplotlib
import pytest
from matplotlib.figure import Figure

from overparam.report.figures.least_squares import least_squares
from overparam.report.figures.style import log_scale, looks
from overparam.report.figures.svg import to_svg


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


@pytest.mark.parametrize("place", [1.0, 0.01, 3e-7, 128.0])
def test_a_log_axis_over_one_place_has_room_on_both_sides(place: float) -> None:
    """Bars end at their place up to rounding only: an axis from one end to the other would have no room for it."""
    figure = Figure()
    axes = figure.subplots()
    axes.errorbar([place] * 2, [1.0, 2.0], yerr=[0.1, 0.2], capsize=2)
    log_scale(axes, "x")
    figure.canvas.draw()
    low, high = axes.get_xlim()
    assert 2.0 < place / low < 10.0 and 2.0 < high / place < 10.0
    assert sum(low <= tick <= high for tick in axes.get_xticks()) >= 3


def test_a_users_settings_do_not_change_figures() -> None:
    def drawn() -> str:
        return to_svg(least_squares().figure)

    usual = drawn()
    with matplotlib.rc_context({"font.size": 30.0, "axes.facecolor": "red"}):
        assert drawn() == usual
        assert matplotlib.rcParams["font.size"] == 30.0


def test_twenty_names_look_different() -> None:
    found = looks([str(index) for index in range(20)])
    assert len({(look["color"], look["marker"]) for look in found.values()}) == 20
