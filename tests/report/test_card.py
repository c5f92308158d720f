"""The card of one network: what its bounds are, and which of them a search found."""

import math
import re
from typing import Any

import torch
from torch import nn

from overparam.measure.sharpness.card import sharpness_report
from overparam.report.card import card_page, lower_bound


def row(name: str, lower: float | None, upper: float | None, note: str = "") -> dict[str, Any]:
    bounds = {"value": 1.5, "lower": lower, "upper": upper}
    return {"name": name, **bounds, "invariant": None, "rescaled_value": None, "note": note}


def page(*rows: dict[str, Any]) -> str:
    card = {"rows": rows, "loss": 0.1, "accuracy": None, "pairs": [], "factor": 4.0, "skipped": []}
    return card_page(card, "net")


def test_an_open_bound_is_infinite_and_a_missing_one_is_not() -> None:
    found = page(
        row("trace", 1.0, 2.0),
        row("noise", None, None, "mean of 1 draws"),
        row("worst l2", 1.5, None, "lower bound, radius 0.05"),
        row("pac-bayes sigma", 1.5, None, "accuracy −0.1, not reached"),
    )
    assert re.findall(r'<td class="number">(\[.*?)</td>', found) == ["[1, 2]", "[–, –]", "[1.5, ∞)", "[1.5, ∞)"]
    assert ">Bounds</th>" in found and "a lower bound of the true one" in found


def test_without_lower_bounds_all_bounds_are_intervals() -> None:
    found = page(row("trace", 1.0, 2.0))
    assert "Bounds are 95 % intervals." in found and "∞" not in found


def test_a_lower_bound_that_is_not_a_number_is_missing() -> None:
    assert not lower_bound(row("worst l2", None, None, "lower bound, radius 0.05") | {"value": None})


def test_rows_of_a_report_that_are_open_above_are_known_by_their_notes() -> None:
    model, x = nn.Linear(2, 1, bias=False), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    model.weight.data.copy_(torch.tensor([[2.0, 1.0]]))
    report = sharpness_report(model, "mse", (x, model(x).detach()), radius=0.1, adaptive_radius=0.3, box=0.2)
    found = card_page(report.to_json(), "net")
    assert found.count("∞)</td>") == sum(row.upper == math.inf for row in report.rows) == 4
