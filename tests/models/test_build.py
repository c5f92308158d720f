"""Architectures: parameter counts, initialization and shapes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overparam.foundations.torch_generators import torch_generator
from overparam.models.build import build
from overparam.specs import CNN, MLP
from overparam.specs.models.model import count_parameters


@pytest.mark.parametrize(
    ("width", "count"), [(8, 6_514), (32, 27_562), (128, 134_794), (1024, 2_913_290), (4096, 36_818_954)]
)
def test_mlp_has_the_papers_parameter_counts(width: int, count: int) -> None:
    assert count_parameters(MLP(width=width), (1, 28, 28), 10) == count


@pytest.mark.parametrize(("batch_norm", "count"), [(False, 814_122), (True, 815_018)])
def test_cnn_has_the_papers_parameter_counts(batch_norm: bool, count: int) -> None:
    assert count_parameters(CNN(channels=32, batch_norm=batch_norm), (3, 32, 32), 10) == count


def test_lenet_300_100_has_its_weights() -> None:
    model = build(MLP(width=(300, 100)), (1, 28, 28), 10, generator=torch_generator(0, "init"))
    weights = [p.numel() for p in model.parameters() if p.dim() == 2]
    assert weights == [235_200, 30_000, 1_000]


@pytest.mark.parametrize("shape", [(40,), (1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 17, 9)])
@pytest.mark.parametrize(
    "spec",
    [MLP(width=5), MLP(width=(7, 3), activation="erf", bias=False), CNN(channels=2), CNN(channels=3, batch_norm=False)],
)
def test_any_input_shape_gives_logits(spec: MLP | CNN, shape: tuple[int, ...]) -> None:
    model = build(spec, shape, 7, generator=torch_generator(0, "init"))
    assert model(torch.zeros(4, *shape)).shape == (4, 7)
    assert count_parameters(spec, shape, 7) == sum(parameter.numel() for parameter in model.parameters())


def test_cnn_refuses_inputs_that_vanish() -> None:
    with pytest.raises(ValueError, match=r"at least 8 per axis, got shape \(1, 4, 4\)"):
        build(CNN(channels=2), (1, 4, 4), 10, generator=torch_generator(0, "init"))


@given(seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_weights_come_from_the_generator_alone(seed: int) -> None:
    before = torch.get_rng_state()
    first, again = (build(CNN(channels=2), (1, 8, 8), 3, generator=torch_generator(seed, "init")) for _ in range(2))
    other = build(CNN(channels=2), (1, 8, 8), 3, generator=torch_generator(seed + 1, "init"))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_standard_initialization_is_pytorchs() -> None:
    """U(±1/√fan_in) for weights and biases: bound and variance of the default Linear and Conv2d."""
    model = build(MLP(width=400, depth=2), (900,), 10, generator=torch_generator(3, "init"))
    weight, bias = (parameter.detach() for parameter in list(model.parameters())[:2])
    for values in (weight, bias):
        assert values.abs().max() <= 1 / 30
        assert abs(float(values.var()) * 3 * 900 - 1) < 5 * (0.9 / values.numel()) ** 0.5
    reference = torch.nn.Linear(900, 400)
    assert abs(float(reference.weight.detach().std() / weight.std()) - 1) < 0.01


def test_ntk_parameterization_scales_in_the_forward_pass() -> None:
    """One layer: outputs on unit inputs have variance σ_w² = 2, whatever the fan-in."""
    spec = MLP(width=3, depth=1, parameterization="ntk", bias=False)
    for fan_in in (10, 1000):
        outputs = torch.cat(
            [
                build(spec, (fan_in,), 50, generator=torch_generator(seed, "init"))(torch.ones(1, fan_in))
                for seed in range(40)
            ]
        )
        assert abs(float(outputs.detach().var()) / 2.0 - 1) < 5 * (2 / outputs.numel()) ** 0.5


def test_batch_norm_starts_at_identity() -> None:
    model = build(CNN(channels=2), (1, 8, 8), 3, generator=torch_generator(0, "init"))
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 6
    for norm in norms:
        values = dict(norm.named_parameters()) | dict(norm.named_buffers())
        assert {name: set(value.flatten().tolist()) for name, value in values.items()} == {
            "weight": {1.0},
            "bias": {0.0},
            "running_mean": {0.0},
            "running_var": {1.0},
            "num_batches_tracked": {0},
        }
