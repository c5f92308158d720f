"""The report: which measures a rescaling moves, what is skipped, and that its numbers are those of the measures."""

import json
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.problem import Batch
from overparam.measure.sharpness.card import SharpnessReport, sharpness_report
from overparam.measure.sharpness.rescaling import rescaled
from overparam.measure.spectrum.eigenvalues import top_eigenvalues
from tests.support.networks import Once, rows, shaken

SMALL = {"sigmas": (0.01, 0.05), "relative_sigmas": (0.1,)}
ABSOLUTE = {"lambda_max", "lambda_min", "trace", "noise absolute 0.01", "noise absolute 0.05"}
WORST = {"worst l2", "worst linf", "worst keskar"}
INVARIANT = {"noise filter 0.1", "noise adaptive 0.1", "worst adaptive", "pac-bayes adaptive", "relative flatness"}


def net(activation: type[nn.Module]) -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 3))
    generator = torch_generator(0, "weights")
    for parameter in model.parameters():
        parameter.data.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model


def labelled(model: nn.Module) -> tuple[Tensor, Tensor]:
    x = torch.randn(60, 6, generator=torch_generator(0, "test"))
    return x, model(x).argmax(1)


@pytest.fixture(scope="module")
def relu() -> SharpnessReport:
    model = net(nn.ReLU)
    return sharpness_report(model, "cross_entropy", labelled(model), **SMALL)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tanh() -> SharpnessReport:
    model = net(nn.Tanh)
    return sharpness_report(model, "cross_entropy", labelled(model), **SMALL)  # type: ignore[arg-type]


def test_a_rescaling_moves_what_depends_on_the_scale_of_the_weights(relu: SharpnessReport) -> None:
    assert set(relu.moved) == ABSOLUTE | WORST | {"pac-bayes sigma"}
    assert {row.name for row in relu.rows if row.invariant} == INVARIANT
    assert relu.pairs == (("0", "2"), ("2", "4")) and relu.skipped == ()
    for name in INVARIANT:
        assert relu[name].rescaled_value == pytest.approx(relu[name].value, rel=1e-4), name


def test_each_value_is_that_of_the_measure_on_the_network_and_on_its_copy(relu: SharpnessReport) -> None:
    model = net(nn.ReLU)
    data = labelled(model)
    for m, value in ((model, relu["lambda_max"].value), (rescaled(model, data)[0], relu["lambda_max"].rescaled_value)):
        assert value == pytest.approx(float(top_eigenvalues(m, "cross_entropy", data, tol=1e-5).values), rel=1e-2)
    outputs = model(data[0]).detach()
    assert relu.loss == pytest.approx(float(nn.functional.cross_entropy(outputs, data[1])), rel=1e-5)
    assert relu.accuracy == 1.0


def test_every_interval_holds_its_value(relu: SharpnessReport) -> None:
    for row in relu.rows:
        assert row.lower <= row.value <= row.upper, row.name


def test_without_a_rescaling_the_report_says_so(tanh: SharpnessReport) -> None:
    assert all(row.invariant is None and row.rescaled_value is None for row in tanh.rows)
    assert tanh.pairs == () and tanh.moved == ()
    assert "no rescaling leaves the outputs of this network as they are" in tanh.to_text()


def test_closed_forms_on_a_quadratic() -> None:
    """Hessian diag(1/2, 9/2) at the minimum, θ = (2, 1)."""
    model, x = nn.Linear(2, 1, bias=False), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    model.weight.data.copy_(torch.tensor([[2.0, 1.0]]))
    report = sharpness_report(model, "mse", (x, model(x).detach()), radius=0.1, adaptive_radius=0.3, box=0.2)
    expected = {
        "lambda_max": 4.5,
        "lambda_min": 0.5,
        "trace": 5.0,
        "worst l2": 0.0225,
        "worst linf": 0.2**2 * 5.0 / 2,
        "worst adaptive": 0.3**2 * 4.5 / 2,  # |θ|H|θ| = diag(2, 9/2)
        "worst keskar": 100 * (0.6**2 * 0.5 + 0.4**2 * 4.5) / 2,
    }
    for name, value in expected.items():
        assert report[name].value == pytest.approx(value, rel=1e-2), name


def test_regression_skips_what_needs_classes() -> None:
    model, x = net(nn.ReLU), torch.randn(20, 6, generator=torch_generator(0, "test"))
    report = sharpness_report(model, "mse", (x, model(x).detach() + 0.1), **SMALL)  # type: ignore[arg-type]
    assert dict(report.skipped) == dict.fromkeys(("pac-bayes sigma", "pac-bayes adaptive"), "targets are not classes")
    assert {row.name for row in report.rows} == (ABSOLUTE | WORST | INVARIANT) - {"pac-bayes adaptive"}
    assert "skipped pac-bayes sigma: targets are not classes" in report.to_text()
    assert math.isnan(report.accuracy) and "accuracy" not in report.to_text().splitlines()[-5]


def test_only_the_chosen_parameters_are_measured() -> None:
    """A last bias under mse: the Hessian is the identity, and there is neither filter nor layer."""
    model, x = net(nn.ReLU), torch.randn(20, 6, generator=torch_generator(0, "test"))
    report = sharpness_report(model, "mse", (x, model(x).detach()), params="4.bias", **SMALL)  # type: ignore[arg-type]
    assert report["trace"].value == pytest.approx(3.0, rel=1e-5)
    assert {"noise filter", "relative flatness"} <= dict(report.skipped).keys()
    assert report["lambda_max"].invariant is True


def test_the_layer_of_relative_flatness_is_the_last_of_the_chosen(tanh: SharpnessReport) -> None:
    model = net(nn.Tanh)
    report = sharpness_report(model, "cross_entropy", labelled(model), params=["0", "2"], **SMALL)  # type: ignore[arg-type]
    assert (report["relative flatness"].note, tanh["relative flatness"].note) == ("2.weight", "4.weight")


def test_the_text_has_a_line_for_every_measure(relu: SharpnessReport) -> None:
    lines = relu.to_text().splitlines()
    assert lines[0].split() == ["measure", "value", "lower", "upper", "rescaled", "note"]
    for row, line in zip(relu.rows, lines[1:], strict=False):
        assert line.startswith(row.name) and f"{row.value:.4g}" in line
        assert ("moved" in line) is (row.invariant is False) and ("same" in line) is (row.invariant is True)
    assert f"moved by more than 2%: {', '.join(relu.moved)}" in lines


def test_json_holds_plain_finite_values(relu: SharpnessReport, tanh: SharpnessReport) -> None:
    for report in (relu, tanh):
        plain = json.loads(json.dumps(report.to_json(), allow_nan=False))
        assert [row["name"] for row in plain["rows"]] == [row.name for row in report.rows]
        assert plain["moved"] == list(report.moved) and plain["pairs"] == [list(pair) for pair in report.pairs]
    assert next(row["upper"] for row in plain["rows"] if row["name"] == "worst l2") is None


def test_the_same_call_gives_the_same_numbers_and_leaves_the_model(relu: SharpnessReport) -> None:
    model = net(nn.ReLU)
    data, state = labelled(model), torch.get_rng_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    again = sharpness_report(model, "cross_entropy", data, **SMALL)  # type: ignore[arg-type]
    other = sharpness_report(model, "cross_entropy", data, generator=torch_generator(1), **SMALL)  # type: ignore[arg-type]
    assert again == relu
    assert other["noise absolute 0.01"].value != relu["noise absolute 0.01"].value
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and torch.equal(state, torch.get_rng_state())


class Augmented:
    """Other examples at every reading."""

    def __init__(self, model: nn.Module) -> None:
        self.batch, self.readings = labelled(model), 0

    def __iter__(self) -> Iterator[Batch]:
        self.readings += 1
        x, y = self.batch
        yield x + 0.3 * torch.randn(x.shape, generator=torch_generator(self.readings, "noise")), y


def test_the_data_is_read_once_so_that_only_a_rescaling_moves_a_measure() -> None:
    model = net(nn.ReLU)
    data, first = Augmented(model), list(Augmented(model))
    found = sharpness_report(model, "cross_entropy", data, **SMALL)  # type: ignore[arg-type]
    assert data.readings == 1
    assert found == sharpness_report(model, "cross_entropy", first, **SMALL)  # type: ignore[arg-type]
    assert {row.name for row in found.rows if row.invariant} >= INVARIANT
    with pytest.raises(ValueError, match="data is a list_iterator; give .* that can be read again"):
        sharpness_report(model, "cross_entropy", iter(first), **SMALL)  # type: ignore[arg-type]


def test_the_notes_name_products_that_were_differences(tanh: SharpnessReport) -> None:
    """Where the chosen weights lie before the operation; behind it there are second derivatives."""
    model = shaken(nn.Sequential(nn.Linear(4, 5), Once(), nn.Linear(5, 3)))
    report = sharpness_report(model, "cross_entropy", rows(), params="0", **SMALL)  # type: ignore[arg-type]
    by_products = ("lambda_max", "lambda_min", "trace", "relative flatness")
    assert [row.name for row in report.rows if "by finite differences" in row.note] == list(by_products)
    assert report["relative flatness"].note == "0.weight, by finite differences"
    assert not any("differences" in row.note for row in tanh.rows)


def test_bad_inputs_are_named(relu: SharpnessReport) -> None:
    model = net(nn.ReLU)
    data = labelled(model)
    with pytest.raises(ValueError, match="radius = -1.0; allowed"):
        sharpness_report(model, "cross_entropy", data, radius=-1.0, **SMALL)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="factor = 1.0; allowed"):
        sharpness_report(model, "cross_entropy", data, factor=1.0, **SMALL)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match='no measure "lambda"; there are: lambda_max'):
        relu["lambda"]


class Uncopied(nn.Sequential):
    def __deepcopy__(self, memo: object) -> "Uncopied":
        raise RuntimeError("holds a handle to a device")


def test_a_model_that_cannot_be_copied_is_measured_all_the_same() -> None:
    model = Uncopied(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    report = sharpness_report(model, "cross_entropy", rows(30), **SMALL)  # type: ignore[arg-type]
    assert dict(report.skipped)["rescaling"] == "holds a handle to a device"
    assert report.pairs == () and report.moved == ()
    assert math.isfinite(report["lambda_max"].value)


def test_a_weight_that_is_computed_before_every_pass_is_no_obstacle() -> None:
    """After a pass with gradients it is no leaf, and a module that holds it cannot be copied."""
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    with pytest.warns(FutureWarning, match="weight_norm"):
        torch.nn.utils.weight_norm(model[2])
    model(torch.ones(1, 4, dtype=torch.float64))
    assert math.isfinite(sharpness_report(model, "cross_entropy", rows(30), **SMALL)["trace"].value)  # type: ignore[arg-type]


def test_a_frozen_part_in_another_precision_is_no_obstacle() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    model.register_parameter("scale", nn.Parameter(torch.ones(2, dtype=torch.bfloat16), requires_grad=False))
    report = sharpness_report(model, "cross_entropy", rows(30), **SMALL)  # type: ignore[arg-type]
    assert math.isfinite(report["trace"].value)


@pytest.mark.parametrize("factor", [0.0, 1.0, math.inf])
def test_a_factor_out_of_range_is_refused_before_anything_is_measured(factor: float) -> None:
    calls: list[int] = []

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        calls.append(1)
        return outputs.sum(1)

    with pytest.raises(ValueError, match="factor"):
        sharpness_report(net(nn.ReLU), loss, (torch.ones(3, 6), torch.ones(3)), factor=factor)
    assert not calls
