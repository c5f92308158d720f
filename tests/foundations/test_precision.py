"""A caller's faster products do not reach what is computed, and are back afterwards."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import overparam as op
from overparam.foundations.precision import full_precision
from overparam.foundations.torch_generators import torch_generator
from overparam.measure.kernels.linearization import linearize
from overparam.measure.problem.opening import opened

NEWER = hasattr(torch.backends, "fp32_precision")
backends: Any = torch.backends


def switches() -> list[object]:
    found: list[object] = [torch.is_autocast_enabled("cpu")]
    if NEWER:
        found += [s.fp32_precision for s in (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.conv)]
        found += [s.fp32_precision for s in (backends.mkldnn.matmul, backends.mkldnn.rnn, backends.cudnn.rnn)]
    return found


def by_older_switches() -> None:
    torch.set_float32_matmul_precision("medium")
    backends.cudnn.allow_tf32 = True


def by_newer_switches() -> None:
    backends.cuda.matmul.fp32_precision = "tf32"
    backends.mkldnn.matmul.fp32_precision = "bf16"
    backends.mkldnn.conv.fp32_precision = "bf16"
    backends.cudnn.conv.fp32_precision = "ieee"  # and not the rnn: the older switch can no longer be read


WAYS = [by_older_switches, *([by_newer_switches] if NEWER else [])]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = True
    if NEWER:
        backends.mkldnn.conv.fp32_precision = "none"


class Witness(nn.Module):
    """Notes what it sees of the switches while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.seen = nn.Linear(2, 3), list[list[object]]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(switches())
        found: Tensor = self.inner(x)
        return found


def in_problem(model: nn.Module, x: Tensor) -> None:
    op.perturbation_curve(model, "cross_entropy", (x, torch.zeros(4, dtype=torch.long)), [0.1], draws=2)


def in_kernel(model: nn.Module, x: Tensor) -> None:
    op.empirical_ntk(model, x)


def in_linearized(model: nn.Module, x: Tensor) -> None:
    linearize(model, x)(model)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("measure", [in_problem, in_kernel, in_linearized])
def test_measures_run_in_full_precision(way: Callable[[], None], measure: Callable[[nn.Module, Tensor], None]) -> None:
    way()
    model = Witness()
    with torch.autocast("cpu", torch.bfloat16):
        before = switches()
        measure(model, torch.ones(4, 2))
        assert switches() == before
    assert model.seen and all(seen == [False, *["ieee"] * (len(seen) - 1)] for seen in model.seen)


@pytest.mark.parametrize("way", WAYS)
def test_switches_are_back_after_an_error(way: Callable[[], None]) -> None:
    way()
    before = switches()
    with pytest.raises(KeyError), full_precision():
        torch.backends.cudnn.flags(enabled=False)  # reads the older switch
        raise KeyError
    assert switches() == before


def test_autocast_changes_no_product() -> None:
    x = torch.randn(8, 300, generator=torch_generator(0, "x"))
    model, pair = nn.Linear(300, 2), (x, torch.zeros(8, 2))
    with opened(model, "mse", pair) as problem:
        expected = problem.gradient()
    with torch.autocast("cpu", torch.bfloat16), opened(model, "mse", pair) as problem:
        assert torch.equal(problem.gradient(), expected)


def test_training_is_the_same_under_autocast(tmp_path: Path) -> None:
    spec = op.RunSpec(
        data=op.DataSpec(name="digits", num_train=64),
        model=op.CNN(channels=2),
        train=op.TrainSpec(optimizer=op.SGD(lr=0.05), batch_size=32, steps=3),
    )
    plain = op.train(spec, store=tmp_path / "a")
    with torch.autocast("cpu", torch.bfloat16):
        cast = op.train(spec, store=tmp_path / "b")
    expected, found = plain.weights("final"), cast.weights("final")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
