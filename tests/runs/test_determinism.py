"""Settings of torch are in place inside the block and back after it."""

import pytest
import torch

from overparam.runs.determinism import settled
from overparam.runs.execution import Execution


def settings() -> tuple[object, ...]:
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
    )


@pytest.mark.parametrize(("device", "deterministic"), [("cpu", False), ("cuda", True), ("cuda:1", True)])
def test_settings_hold_inside_and_are_taken_back(
    device: str, deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_float32_matmul_precision("high")
    before = settings()
    with monkeypatch.context() as patch:  # as if this machine had two
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 2)
        execution = Execution(device=device, threads=2)
    with settled(execution):
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
    assert settings() == before
    torch.set_float32_matmul_precision("highest")


def test_an_optimizer_in_a_run_does_not_see_a_callers_defaults() -> None:
    """Optimizers without a fused kernel keep their step count in the default dtype, on the default device."""
    weight = torch.zeros(1, requires_grad=True)
    weight.grad = torch.ones(1)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), settled(Execution()):
            optimizer = torch.optim.RAdam([weight], lr=0.1)
            optimizer.step()
    finally:
        torch.set_default_dtype(torch.float32)
    step = optimizer.state[weight]["step"]
    assert (step.dtype, step.device.type, float(step)) == (torch.float32, "cpu", 1.0)
