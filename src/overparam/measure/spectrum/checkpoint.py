"""A solve's progress in one file, so that a long one can be gone on with."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from overparam.foundations.files import replaced
from overparam.measure.problem.problem import Problem


def fingerprint(problem: Problem, settings: Mapping[str, object]) -> str:
    """Digest of weights, data, loss and settings: what must be the same for a solve to be gone on with."""
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16)
    loss = problem.loss if isinstance(problem.loss, str) else getattr(problem.loss, "__qualname__", "callable")
    value = problem.risk()  # of the function itself: other activations or losses have the same names and weights
    digest.update(f"{loss} {problem.layout} {value} {problem.model}".encode())
    for tensor in (problem.theta, *problem.fixed.values(), *(each for chunk in problem.chunks for each in chunk)):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save(file: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Replace the file in one rename."""
    content = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replaced(file) as draft:
        save_file(content, draft, {"meta": json.dumps(meta)})


def load(file: Path, expected: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and progress, or `None` if there is no file yet.

    Raises:
        ValueError: the file is damaged, or belongs to another model, other data or other settings.
    """
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as content:
            meta: dict[str, Any] = json.loads(content.metadata()["meta"])
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            whose = meta["fingerprint"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        raise damaged(file) from None
    if whose != expected:
        raise ValueError(
            f"checkpoint {file} belongs to another model, other data or other settings; delete it or name another file"
        )
    return tensors, meta


def damaged(file: Path) -> ValueError:
    return ValueError(f"checkpoint {file} is damaged; delete it to start anew")
