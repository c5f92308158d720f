"""Worst cases, PAC-Bayes σ and relative flatness against closed forms, and what each must not depend on."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.problem.problem import Problem
from overparam.measure.sharpness.pac_bayes import crossing, pac_bayes_sigma
from overparam.measure.sharpness.relative_flatness import relative_flatness
from overparam.measure.sharpness.rescaling import rescaled
from overparam.measure.sharpness.weight_noise import perturbation_curve, scaled_direction
from overparam.measure.sharpness.worst_case import worst_case_sharpness

F64 = torch.float64


def inputs(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch_generator(seed, "test"), dtype=F64)


def filled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights from a stream of their own."""
    generator = torch_generator(seed, "weights")
    for parameter in model.parameters():
        parameter.data.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=F64))
    return model


def weighted(*rows: list[float]) -> nn.Module:
    """A linear model with given weights."""
    model = nn.Linear(len(rows[0]), len(rows), bias=False).double()
    model.weight.data.copy_(torch.tensor(rows, dtype=F64))
    return model


def relu_net() -> nn.Module:
    return filled(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).double())


def labelled(count: int = 40) -> tuple[Tensor, Tensor]:
    return inputs(count, 6), torch.randint(0, 3, (count,), generator=torch_generator(1, "test"))


def with_hessian(*diagonal: float) -> Tensor:
    """Inputs with `XᵀX/N` of this diagonal."""
    return (len(diagonal) * torch.tensor(diagonal, dtype=F64)).sqrt().diag()


def linear_loss(outputs: Tensor, _: Tensor) -> Tensor:
    return outputs.sum(1)


@given(seed=st.integers(0, 10**6), size=st.integers(1, 12), outputs=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_l2_at_the_minimum_of_a_quadratic_is_half_the_largest_eigenvalue(seed: int, size: int, outputs: int) -> None:
    """The gradient is exactly zero at the start; the start inside the ball is not the minimum."""
    model, x = filled(nn.Linear(size, outputs, bias=False).double(), seed), inputs(15, size, seed)
    y = model(x).detach()
    with opened(model, "mse", (x, y)) as problem:
        assert not bool(problem.gradient().any())
    expected = 0.1**2 * float(torch.linalg.eigvalsh(x.T @ x / 15)[-1]) / 2
    found = worst_case_sharpness(model, "mse", (x, y), radius=0.1)
    assert 0.99 * expected <= found.value <= (1 + 1e-9) * expected
    assert (found.status, found.lower, found.upper) == ("lower_bound", found.value, math.inf)
    assert math.isnan(found.stderr) and found.num_products == 3 * 21


@given(seed=st.integers(0, 10**6), radius=st.floats(0.01, 10.0))
@settings(max_examples=15, deadline=None)
def test_l2_away_from_the_minimum(seed: int, radius: float) -> None:
    """With Hessian 2·1 the maximum is `radius·‖g‖ + radius²`."""
    model, x = filled(nn.Linear(3, 1, bias=False).double(), seed), with_hessian(2.0, 2.0, 2.0)
    y = inputs(3, 1, seed)
    with opened(model, "mse", (x, y)) as problem:
        slope = float(problem.gradient().norm())
    found = worst_case_sharpness(model, "mse", (x, y), radius=radius)
    assert found.value == pytest.approx(radius * slope + radius**2, rel=1e-2)


@pytest.mark.parametrize(
    ("norm", "adaptive", "expected"),
    [
        ("l2", False, 0.1 * 5.0),  # radius · ‖g‖₂
        ("linf", False, 0.1 * 7.0),  # radius · ‖g‖₁
        ("l2", True, 0.1 * 10.0),  # radius · ‖θ⊙g‖₂, θ = (2, −2)
        ("linf", True, 0.1 * 14.0),
        ("keskar", False, 100 * 0.1 * (3 * 3 + 3 * 4) / 3.0),  # box radius·(|θ|+1), over 1 + L = 3
    ],
)
def test_a_linear_loss_shows_the_ball(norm: Any, adaptive: bool, expected: float) -> None:
    """`L = g·θ` plus a constant; the search may neither leave the ball nor stop short of its edge."""
    model, x = weighted([2.0, -2.0]), torch.tensor([[3.0, 4.0]], dtype=F64)
    found = worst_case_sharpness(
        model, lambda outputs, _: outputs.sum(1) + 4.0, (x, x), radius=0.1, norm=norm, adaptive=adaptive
    )
    assert found.value == pytest.approx(expected, rel=1e-6)


def test_linf_at_the_minimum_of_a_diagonal_quadratic_is_a_corner() -> None:
    model, x = weighted([1.0, 2.0, -3.0]), with_hessian(0.5, 1.0, 4.0)
    found = worst_case_sharpness(model, "mse", (x, model(x).detach()), radius=0.1, norm="linf")
    assert found.value == pytest.approx(0.1**2 * 5.5 / 2, rel=1e-9)


def test_linf_moves_weights_of_small_slope_as_far_as_the_others() -> None:
    model, x = weighted([1.0, 1.0]), torch.tensor([[1e-6, 1.0]], dtype=F64)
    target = model(x).detach() - 1.0
    found = worst_case_sharpness(model, "mse", (x, target), radius=0.1, norm="linf", steps=3)
    step = 0.1 * (1.0 + 1e-6)
    assert found.value == pytest.approx(step + step**2 / 2, rel=1e-9)


def test_keskar_at_zero_weights() -> None:
    """θ = 0 and L = 0: all corners have |δ_i| = ε, hence `100·(ε²/2)·tr H`."""
    model, x = weighted([0.0, 0.0, 0.0]), with_hessian(0.5, 1.0, 4.0)
    found = worst_case_sharpness(model, "mse", (x, torch.zeros(3, 1, dtype=F64)), radius=0.01, norm="keskar")
    assert found.value == pytest.approx(100 * 0.01**2 / 2 * 5.5, rel=1e-9)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_maximum_inside_the_ball_is_found_by_shorter_steps(norm: Any) -> None:
    """`L = −(θ − θ*)²` with the maximum .03 away, in a ball of radius 1."""
    model, x = weighted([1.0]), torch.ones(1, 1, dtype=F64)
    target = torch.full((1, 1), 1.03, dtype=F64)
    found = worst_case_sharpness(
        model, lambda outputs, y: -(outputs - y).square().sum(1), (x, target), radius=1.0, norm=norm, steps=40
    )
    assert found.value == pytest.approx(0.03**2, rel=1e-2)


def test_nothing_above_the_model_is_zero() -> None:
    """At a maximum δ = 0 is the best point of the ball."""
    model, x = weighted([1.0]), torch.ones(1, 1, dtype=F64)
    found = worst_case_sharpness(model, lambda outputs, y: -(outputs - y).square().sum(1), (x, x), radius=1.0)
    assert found.value == 0.0


def test_a_loss_that_breaks_inside_the_ball_is_infinite() -> None:
    """`−log θ` at θ = 1: finite within .5, not within 2."""
    model, x = weighted([1.0]), torch.ones(1, 1, dtype=F64)
    near, far = (
        worst_case_sharpness(model, lambda outputs, _: -outputs.log().sum(1), (x, x), radius=radius)
        for radius in (0.5, 2.0)
    )
    assert near.value == pytest.approx(math.log(2.0), rel=1e-6)
    assert far.value == math.inf and far.status == "lower_bound"


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_adaptive_sharpness_sees_only_the_function(norm: Any) -> None:
    model, data = relu_net(), labelled()
    twin, pairs = rescaled(model, data)
    assert pairs
    for adaptive in (True, False):
        values = [
            worst_case_sharpness(m, "cross_entropy", data, radius=0.05, norm=norm, adaptive=adaptive).value
            for m in (model, twin)
        ]
        assert (values[0] == pytest.approx(values[1], rel=1e-6)) is adaptive


def test_adaptive_sharpness_leaves_zero_weights_at_zero() -> None:
    model, x = weighted([0.0, 2.0]), with_hessian(100.0, 1.0)
    found = worst_case_sharpness(model, "mse", (x, model(x).detach()), radius=0.1, adaptive=True)
    assert found.value == pytest.approx((0.1 * 2.0) ** 2 / 2, rel=1e-6)


@pytest.mark.parametrize("norm", ["l2", "linf", "keskar"])
def test_parameters_that_the_loss_does_not_depend_on_are_held(norm: Any) -> None:
    """In the ball they would take their share of a random start."""
    model, data = relu_net(), labelled()
    plain = worst_case_sharpness(model, "cross_entropy", data, radius=0.1, norm=norm)
    model.register_parameter("unused", nn.Parameter(torch.ones(3, dtype=F64)))
    found = worst_case_sharpness(model, "cross_entropy", data, radius=0.1, norm=norm, unused="hold")
    assert found == plain


def test_a_loss_that_is_not_finite_at_the_model_is_no_sharpness_of_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Infinite at the last of 600 examples, which lies in no first chunk."""
    model, x = weighted([1.0]), torch.ones(600, 1, dtype=F64)
    x[-1] = math.inf
    with pytest.raises(ValueError, match="the loss is not finite"):
        worst_case_sharpness(model, "mse", (x, torch.zeros_like(x)), radius=0.1)
    monkeypatch.setattr(Problem, "risk", lambda self, theta=None: (math.nan, math.nan))
    assert math.isnan(worst_case_sharpness(relu_net(), "cross_entropy", labelled(), radius=0.1).value)


def test_losses_leave_a_device_before_they_become_float64() -> None:
    """As on a device without float64: only `.cpu()` gives a tensor that has it."""

    class Elsewhere(Tensor):
        def double(self) -> Tensor:
            raise TypeError("this device has no float64")

        def cpu(self) -> Tensor:  # type: ignore[override]
            return self.as_subclass(Tensor)

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, y, reduction="none")

    model, data = relu_net(), labelled()
    found, there = (
        worst_case_sharpness(model, each, data, radius=0.1, steps=3).value
        for each in (loss, lambda outputs, y: loss(outputs, y).as_subclass(Elsewhere))
    )
    assert found == there


def test_only_the_chosen_parameters_move() -> None:
    model, (x, _) = relu_net(), labelled()
    found = worst_case_sharpness(model, "mse", (x, model(x).detach()), radius=0.2, params="4.bias")
    assert found.value == pytest.approx(0.02, rel=1e-6)


def test_chunks_make_no_difference() -> None:
    """The sum over 600 examples runs in three graphs."""
    model, x = weighted([1.0, 1.0]), inputs(600, 2)
    found = worst_case_sharpness(model, "mse", (x, model(x).detach()), radius=0.1)
    assert found.value == pytest.approx(0.005 * float(torch.linalg.eigvalsh(x.T @ x / 600)[-1]), rel=1e-3)


def test_bad_arguments_of_the_worst_case_are_named() -> None:
    model, data = relu_net(), labelled()
    for radius in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"radius = {radius}; allowed: a positive number"):
            worst_case_sharpness(model, "cross_entropy", data, radius=radius)
    with pytest.raises(ValueError, match='norm = "l1"; allowed: "l2", "linf", "keskar"'):
        worst_case_sharpness(model, "cross_entropy", data, radius=0.1, norm="l1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='the "keskar" box already grows'):
        worst_case_sharpness(model, "cross_entropy", data, radius=0.1, norm="keskar", adaptive=True)
    for wrong in ({"steps": 0}, {"restarts": 0}):
        with pytest.raises(ValueError, match="both at least 1"):
            worst_case_sharpness(model, "cross_entropy", data, radius=0.1, **wrong)  # type: ignore[arg-type]
    x = torch.ones(1, 1, dtype=F64)
    with pytest.raises(ValueError, match="all weights are zero"):
        worst_case_sharpness(weighted([0.0]), "mse", (x, x), radius=0.1, adaptive=True)


def test_pac_bayes_sigma_of_one_example_and_one_draw_is_the_margin_over_the_noise() -> None:
    """Weights (w, 0) on x = 1: class 0 is lost from `σ = w/(z_1 − z_0)` on."""
    model, x, y = weighted([3.0], [0.0]), torch.ones(1, 1, dtype=F64), torch.tensor([0])
    seed = 0
    with opened(model, "cross_entropy", (x, y)) as problem:
        z = scaled_direction(problem, "absolute", torch_generator(seed, "z"))
        while z[1] <= z[0]:
            seed += 1
            z = scaled_direction(problem, "absolute", torch_generator(seed, "z"))
    found = pac_bayes_sigma(model, "cross_entropy", (x, y), draws=1, generator=torch_generator(seed, "z"))
    assert found.value == pytest.approx(3.0 / float(z[1] - z[0]), rel=0.01)
    assert math.isnan(found.stderr) and (found.lower, found.upper) == (0.0, math.inf)


@pytest.mark.parametrize("scale", ["absolute", "adaptive"])
@pytest.mark.parametrize("drop", [0.1, 0.3])
def test_at_pac_bayes_sigma_the_mean_accuracy_crosses_its_target(scale: Any, drop: float) -> None:
    model, (x, _) = relu_net(), labelled()
    data = (x, model(x).argmax(1))  # accuracy 1
    found = pac_bayes_sigma(model, "cross_entropy", data, drop=drop, scale=scale, generator=torch_generator(7))
    around = [found.value / 1.006, found.value * 1.006]
    curve = perturbation_curve(model, "cross_entropy", data, around, scale=scale, generator=torch_generator(7))
    before, after = curve.accuracy_mean.tolist()
    assert before > 1.0 - drop >= after - 1e-9
    assert found.lower < found.value < found.upper and found.stderr > 0.0
    assert found.upper / found.value == pytest.approx(found.value / found.lower)


def test_adaptive_pac_bayes_sigma_sees_only_the_function() -> None:
    model, (x, _) = relu_net(), labelled()
    data = (x, model(x).argmax(1))
    twin, _ = rescaled(model, data)
    for scale, invariant in (("adaptive", True), ("absolute", False)):
        first, second = (pac_bayes_sigma(m, "cross_entropy", data, scale=scale) for m in (model, twin))  # type: ignore[arg-type]
        assert (first == second) is invariant


def test_an_accuracy_that_noise_cannot_lower_is_a_lower_bound() -> None:
    """Inputs 0: the weights do nothing."""
    model, data = weighted([1.0], [0.0]), (torch.zeros(4, 1, dtype=F64), torch.zeros(4, dtype=torch.long))
    found = pac_bayes_sigma(model, "cross_entropy", data)
    assert (found.status, found.value, found.lower, found.upper) == ("lower_bound", 1e4, 1e4, math.inf)


def test_a_draw_that_never_falls_leaves_the_interval_open() -> None:
    """One example, two classes: about half the directions never lose it."""
    model, data = weighted([1.0], [0.0]), (torch.ones(1, 1, dtype=F64), torch.tensor([0]))
    found = pac_bayes_sigma(model, "cross_entropy", data, draws=10)
    assert found.status == "ok" and 0.0 < found.value < 1e4
    assert (found.lower, found.upper) == (0.0, math.inf)


@given(st.floats(2e-8, 9e3))
def test_crossing_finds_a_threshold_to_one_percent(threshold: float) -> None:
    assert crossing(lambda sigma: sigma >= threshold) == pytest.approx(threshold, rel=0.0051)


def test_crossing_beyond_the_limits() -> None:
    assert crossing(lambda sigma: False) == math.inf
    assert crossing(lambda sigma: True) == 0.0


def test_bad_arguments_of_pac_bayes_sigma_are_named() -> None:
    model, x = relu_net(), inputs(20, 6)
    with pytest.raises(ValueError, match="targets must be classes"):
        pac_bayes_sigma(model, "mse", (x, model(x).detach()))
    data = (x, model(x).argmax(1))
    for drop in (0.0, -0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=f"drop = {drop}; allowed: between 0 and the accuracy of the model, 1"):
            pac_bayes_sigma(model, "cross_entropy", data, drop=drop)
    with pytest.raises(ValueError, match="draws = 0"):
        pac_bayes_sigma(model, "cross_entropy", data, draws=0)
    with pytest.raises(ValueError, match='unknown scale "box"'):
        pac_bayes_sigma(model, "cross_entropy", data, scale="box")  # type: ignore[arg-type]


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_relative_flatness_of_a_linear_model(seed: int) -> None:
    """`H_{s,s'} = δ_ss' XᵀX/N`, hence `κ = ‖W‖²·tr(XᵀX/N)`."""
    model, x = filled(nn.Linear(4, 3, bias=False).double(), seed), inputs(20, 4, seed)
    found = relative_flatness(model, "mse", (x, inputs(20, 3)), probes=400)
    exact = float(model.weight.detach().square().sum() * x.square().sum() / 20)  # type: ignore[operator]
    assert abs(found.value - exact) < 5 * found.stderr
    assert found.num_products == 400 and found.stderr < 0.2 * exact


@pytest.mark.parametrize("layer", ["0", "2.weight"])
def test_relative_flatness_is_the_sum_over_blocks_of_the_dense_hessian(layer: str) -> None:
    model = filled(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double())
    x, y = inputs(20, 3), torch.randint(0, 3, (20,), generator=torch_generator(1, "test"))
    name = layer if layer.endswith("weight") else f"{layer}.weight"
    weight = model.get_parameter(name).detach()

    def loss(w: Tensor) -> Tensor:
        return nn.functional.cross_entropy(torch.func.functional_call(model, {name: w}, (x,)), y)

    hessian: Tensor = torch.autograd.functional.hessian(loss, weight)  # type: ignore[no-untyped-call]
    exact = float(torch.einsum("si,ti,sjtj->", weight, weight, hessian))
    found = relative_flatness(model, "cross_entropy", (x, y), layer=layer, probes=2000)
    assert abs(found.value - exact) < 5 * found.stderr and found.stderr < 0.2 * abs(exact)


def test_relative_flatness_takes_the_last_weight_and_sees_only_the_function() -> None:
    model, data = relu_net(), labelled()
    twin, _ = rescaled(model, data)
    for layer in (None, "0", "2"):
        first, second = (relative_flatness(m, "cross_entropy", data, layer=layer) for m in (model, twin))
        assert first.value == pytest.approx(second.value, rel=1e-6)
        assert (first == relative_flatness(model, "cross_entropy", data, layer="4")) is (layer is None)


def test_relative_flatness_flattens_filters() -> None:
    """A 1×1 convolution of 1×1 images is a linear layer."""
    linear, conv = filled(nn.Linear(4, 3, bias=False).double()), nn.Conv2d(4, 3, 1, bias=False).double()
    conv.weight.data.copy_(linear.weight.data.reshape(3, 4, 1, 1))  # type: ignore[operator]
    x, y = inputs(20, 4), inputs(20, 3)
    images = (x.reshape(20, 4, 1, 1), y)
    found = relative_flatness(nn.Sequential(conv, nn.Flatten()), "mse", images)
    assert found.value == pytest.approx(relative_flatness(linear, "mse", (x, y)).value, rel=1e-9)


def test_bad_arguments_of_relative_flatness_are_named() -> None:
    model, data = relu_net(), labelled()
    with pytest.raises(ValueError, match="probes = 1; allowed: an integer ≥ 2"):
        relative_flatness(model, "cross_entropy", data, probes=1)
    for layer in ("5", "0.bias", "1"):
        with pytest.raises(ValueError, match=f'layer = "{layer}"; allowed: 0.weight, 2.weight, 4.weight'):
            relative_flatness(model, "cross_entropy", data, layer=layer)
    with pytest.raises(ValueError, match="no parameter with two dimensions"):
        relative_flatness(nn.LayerNorm(6).double(), "mse", (data[0], data[0]))


def test_the_model_is_left_as_it_was_and_nothing_global_is_drawn() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    model[1].eval()
    data = (inputs(40, 6), model.eval()(inputs(40, 6)).argmax(1))
    model.train()
    model[1].eval()
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    values = [
        (
            worst_case_sharpness(model, "cross_entropy", data, radius=0.1),
            pac_bayes_sigma(model, "cross_entropy", data),
            relative_flatness(model, "cross_entropy", data),
        )
        for _ in range(2)
    ]
    assert repr(values[0]) == repr(values[1])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [m.training for m in model] == [True, False, True, True]
    assert torch.equal(state, torch.get_rng_state())
