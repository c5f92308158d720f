"""Noise on the weights against closed forms on quadratics, and what each scale must leave alone."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem.opening import opened
from overparam.measure.sharpness.rescaling import rescaled
from overparam.measure.sharpness.weight_noise import perturbation_curve, scaled_direction


def inputs(count: int, size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, size, generator=torch_generator(seed, "test"), dtype=dtype)


def filled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights from a stream of their own."""
    generator = torch_generator(seed, "weights")
    for parameter in model.parameters():
        parameter.data.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def at_minimum(seed: int = 0) -> tuple[nn.Module, tuple[Tensor, Tensor], float]:
    """A linear model that fits its targets, and the trace of its Hessian `1 ⊗ XᵀX/N`."""
    model = filled(nn.Linear(4, 3, bias=False).double(), seed)
    x = inputs(20, 4, seed)
    return model, (x, model(x).detach()), 3.0 * float(x.square().sum()) / 20


def relu_net() -> nn.Module:
    return filled(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).double())


def labelled(count: int = 40) -> tuple[Tensor, Tensor]:
    return inputs(count, 6), torch.randint(0, 3, (count,), generator=torch_generator(1, "test"))


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_mean_increase_on_a_quadratic_is_half_the_trace(seed: int) -> None:
    """`E L(θ+σz) − L(θ) = σ² tr(H)/2`, within five standard errors."""
    model, data, trace = at_minimum(seed)
    curve = perturbation_curve(model, "mse", data, [0.3], draws=200, generator=torch_generator(seed, "noise"))
    assert abs(float(curve.increase) - 0.09 * trace / 2) < 5 * float(curve.loss_sem)


def test_directions_are_common_to_all_levels() -> None:
    """On a quadratic every single draw then grows exactly as σ²."""
    model, data, _ = at_minimum()
    curve = perturbation_curve(model, "mse", data, [0.1, 0.2, 1.0], draws=4)
    assert torch.allclose(curve.losses / curve.sigma[:, None] ** 2, curve.losses[-1:], rtol=1e-9)
    assert len(set(curve.losses[0].tolist())) == 4
    alone = perturbation_curve(model, "mse", data, [0.2], draws=4)
    assert torch.equal(alone.losses[0], curve.losses[1])


def test_no_noise_is_no_increase() -> None:
    curve = perturbation_curve(relu_net(), "cross_entropy", labelled(), [0.0, 0.1])
    assert float(curve.increase[0]) == 0.0 == float(curve.loss_sem[0])
    assert float(curve.accuracy_mean[0]) == curve.base_accuracy
    assert float(curve.increase_lower[0]) == 0.0 == float(curve.increase_upper[0])


def test_statistics_are_those_of_the_draws() -> None:
    curve = perturbation_curve(relu_net(), "cross_entropy", labelled(), [0.05, 0.5], draws=6)
    losses = curve.losses.numpy()
    assert losses.shape == (2, 6) and curve.draws == 6
    assert curve.loss_mean.numpy() == pytest.approx(losses.mean(1))
    assert curve.loss_sem.numpy() == pytest.approx(stats.sem(losses, axis=1))
    lower, upper = stats.t.interval(0.95, 5, losses.mean(1) - curve.base_loss, stats.sem(losses, axis=1))
    assert curve.increase_lower.numpy() == pytest.approx(lower)
    assert curve.increase_upper.numpy() == pytest.approx(upper)
    assert curve.relative_increase.numpy() == pytest.approx((losses.mean(1) - curve.base_loss) / curve.base_loss)
    assert curve.accuracy_sem.numpy() == pytest.approx(stats.sem(curve.accuracies.numpy(), axis=1))


def test_losses_and_accuracies_are_those_of_the_moved_model() -> None:
    model, (x, y) = relu_net(), labelled()
    curve = perturbation_curve(model, "cross_entropy", (x, y), [0.3], draws=1, generator=torch_generator(3))
    with opened(model, "cross_entropy", (x, y)) as problem:
        theta = problem.theta + 0.3 * scaled_direction(problem, "absolute", torch_generator(3))
    nn.utils.vector_to_parameters(theta, model.parameters())
    outputs = model(x).detach()
    assert float(curve.losses) == pytest.approx(float(nn.functional.cross_entropy(outputs, y)), rel=1e-9)
    assert float(curve.accuracies) == float((outputs.argmax(1) == y).double().mean())


def test_one_draw_has_no_interval() -> None:
    curve = perturbation_curve(relu_net(), "cross_entropy", labelled(), [0.1], draws=1)
    assert math.isnan(float(curve.loss_sem)) and math.isnan(float(curve.accuracy_sem))
    assert (float(curve.increase_lower), float(curve.increase_upper)) == (-math.inf, math.inf)


def test_a_filter_direction_has_the_norm_of_each_filter_and_leaves_biases() -> None:
    model = filled(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2)).double())
    model[0].weight.data[1] = 0.0  # type: ignore[index]
    data = (inputs(5, 32).reshape(5, 2, 4, 4), torch.zeros(5, dtype=torch.long))
    with opened(model, "cross_entropy", data) as problem:
        parts = problem.layout.split(scaled_direction(problem, "filter", torch_generator(0)))
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            assert not bool(parts[name].any()), name
        else:
            assert torch.allclose(parts[name].flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1)), name
            assert len(set(parts[name].flatten().tolist())) > 1, name


def test_an_adaptive_direction_is_noise_times_the_weight() -> None:
    model, data, _ = at_minimum()
    model.weight.data[0, 0] = 0.0  # type: ignore[operator]
    with opened(model, "mse", data) as problem:
        z, scaled = (scaled_direction(problem, scale, torch_generator(0)) for scale in ("absolute", "adaptive"))
        assert torch.equal(scaled, z * problem.theta.abs())
    assert float(scaled[0]) == 0.0


@pytest.mark.parametrize(("scale", "invariant"), [("absolute", False), ("filter", True), ("adaptive", True)])
def test_which_scales_see_only_the_function(scale: str, invariant: bool) -> None:
    model, data = relu_net(), labelled()
    twin, _ = rescaled(model, data)
    curves = [perturbation_curve(m, "cross_entropy", data, [0.05, 0.2], scale=scale) for m in (model, twin)]  # type: ignore[arg-type]
    assert torch.allclose(curves[0].losses, curves[1].losses, rtol=1e-9) is invariant


def test_losses_that_are_not_finite_stay_so() -> None:
    model, data, _ = at_minimum()
    curve = perturbation_curve(model, "mse", data, [0.1, 1e200])
    assert bool(curve.losses[1].isinf().all()) and math.isinf(float(curve.increase[1]))
    assert bool(curve.losses[0].isfinite().all())


def test_regression_has_no_accuracy() -> None:
    model, data, _ = at_minimum()
    curve = perturbation_curve(model, "mse", data, [0.1])
    assert math.isnan(curve.base_accuracy) and bool(curve.accuracies.isnan().all())


def test_only_the_chosen_parameters_move() -> None:
    """A last bias under mse: the Hessian is the identity, whatever lies before it."""
    model, (x, _) = relu_net(), labelled()
    curve = perturbation_curve(model, "mse", (x, model(x).detach()), [1.0], draws=400, params="4.bias")
    assert float(curve.increase) == pytest.approx(1.5, abs=5 * float(curve.loss_sem))


def test_the_same_call_gives_the_same_numbers_and_draws_nothing_global() -> None:
    model, data = relu_net(), labelled()
    state = torch.get_rng_state()
    first, again = (perturbation_curve(model, "cross_entropy", data, [0.1]) for _ in range(2))
    other = perturbation_curve(model, "cross_entropy", data, [0.1], generator=torch_generator(1))
    assert torch.equal(first.losses, again.losses) and not torch.equal(first.losses, other.losses)
    assert torch.equal(state, torch.get_rng_state())


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    perturbation_curve(model, "cross_entropy", labelled(), [0.1])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [m.training for m in model] == [True, False, True, True]


def test_bad_inputs_are_named() -> None:
    model, data, _ = at_minimum()
    for sigmas in (torch.empty(0), torch.tensor(0.1)):
        with pytest.raises(ValueError, match="at least one noise level"):
            perturbation_curve(model, "mse", data, sigmas)
    for sigma in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="finite numbers ≥ 0"):
            perturbation_curve(model, "mse", data, [0.1, sigma])
    with pytest.raises(ValueError, match="draws = 0; allowed"):
        perturbation_curve(model, "mse", data, [0.1], draws=0)
    with pytest.raises(ValueError, match='unknown scale "layer"; allowed: absolute, filter, adaptive'):
        perturbation_curve(model, "mse", data, [0.1], scale="layer")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two dimensions or more among the parameters; there are: 0.bias"):
        perturbation_curve(nn.Sequential(nn.Linear(4, 3).double()), "mse", data, [0.1], scale="filter", params="0.bias")
