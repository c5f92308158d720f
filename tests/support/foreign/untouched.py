"""What a measure must leave as it was: the caller's model, tensors, generators and PyTorch's own switches."""

import importlib
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

OWN = {"_parameters", "_buffers", "_modules"}  # looked at tensor by tensor
PLAIN = (int, float, str, bool, type(None), torch.dtype, torch.device, torch.Size)


def snapshot(model: nn.Module, given: Mapping[str, Tensor]) -> dict[str, Any]:
    """Everything by the place where it is; two snapshots are equal unless something was changed."""
    return {**dict(_modules(model)), **dict(_given(given)), **_generators(), **_switches()}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The places that differ."""
    return sorted(place for place in before.keys() | after.keys() if before.get(place) != after.get(place))


def _modules(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, module in model.named_modules(remove_duplicate=False):
        yield f"module {path}", id(module)
        yield f"mode of {path}", module.training
        for slots in sorted(OWN):
            for name, value in vars(module)[slots].items():
                yield f"object {path}.{name}", id(value)
                if isinstance(value, Tensor):
                    yield f"tensor {path}.{name}", _told(value)
        for name, value in vars(module).items():
            if name not in OWN:
                yield f"attribute {path}.{name}", _attribute(value)
            if name.endswith("hooks"):  # a handle that removes a hook knows the dictionary that it is in
                yield f"hooks {path}.{name}", id(value)


def _attribute(value: object) -> object:
    """Plain values, and the hooks of a module, by what they are; other objects by their identity.

    A hook such as the old weight_norm computes a tensor anew at every pass: its bits must stay, not the object.
    """
    if isinstance(value, Tensor):
        return _bits(value)
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Mapping):
        return [(repr(key), id(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [id(item()) if isinstance(item, weakref.ref) else id(item) for item in value]
    return id(value)


def _told(value: Tensor) -> tuple[object, ...]:
    grad = None if value.grad_fn is not None else value.grad
    return _bits(value), value.dtype, value.device, value.requires_grad, value.is_leaf, value.stride(), id(grad)


def _bits(value: Tensor) -> bytes | tuple[str, str]:
    if is_lazy(value) or value.device.type == "meta":
        return "uninitialized", str(value.device)
    found = value.detach().contiguous().reshape(-1).view(torch.uint8) if value.numel() else value.new_empty(0)
    return found.numpy().tobytes()


def _given(given: Mapping[str, Tensor]) -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        yield f"given {name}", (_bits(value), value._version, value.requires_grad, id(value.grad))


def _generators() -> dict[str, Any]:
    """PyTorch's, numpy's and Python's global ones; looked up by name, for nothing here may draw from them."""
    numbers = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "generator of torch": _bits(torch.get_rng_state()),
        "generator of numpy": repr(numbers),
        "generator of Python": importlib.import_module("random").getstate(),
    }


def _switches() -> dict[str, Any]:
    kernels = ("flash_sdp_enabled", "mem_efficient_sdp_enabled", "math_sdp_enabled")
    module = importlib.import_module("torch.nn.modules.module")
    return {
        "fast path of attention": torch.backends.mha.get_fastpath_enabled(),
        "kernels of attention": [getattr(torch.backends.cuda, name)() for name in kernels],
        "gradients": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warns where not deterministic": torch.is_deterministic_algorithms_warn_only_enabled(),
        "float32 products": torch.get_float32_matmul_precision(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()),
        "anomalies": torch.is_anomaly_enabled(),
        "oneDNN": torch.backends.mkldnn.enabled,
        "threads": torch.get_num_threads(),
        "hooks of all modules": [len(getattr(module, name)) for name in sorted(vars(module)) if _of_all(name)],
    }


def _of_all(name: str) -> bool:
    return name.startswith("_global_") and name.endswith("hooks")
