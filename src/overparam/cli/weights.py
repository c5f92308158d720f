"""Weights for a user's own module from a safetensors file, also of a wrapped model or without tied names."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and its relatives, and of torch.compile
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar")
SHOWN = 3  # names in an error

State = Mapping[str, Tensor]


def refuse_pickle(weights: Path) -> None:
    """Say how to convert a file of another kind, before anything is opened.

    Raises:
        ValueError: the name of the file is one of a pickle.
    """
    if weights.suffix.lower() not in PICKLES:
        return
    target = weights.with_suffix(".safetensors")
    raise ValueError(
        f"{weights} is a pickle by its name ({weights.suffix}), which may run any program when it is opened, so that "
        f"only safetensors are read; if you trust it, make {target} with these two lines of Python and pass that:\n"
        f'import torch, safetensors.torch; state = torch.load({str(weights)!r}, map_location="cpu")\n'
        'safetensors.torch.save_file({name: x.contiguous().clone() for name, x in state.get("state_dict", state)'
        f".items()}}, {str(target)!r})"
    )


def load_weights(model: nn.Module, weights: Path) -> str | None:
    """Put weights into a module. What was stripped from all their names is said, if anything was.

    A name that is not in the file is no fault where the module has the same tensor under another name that is, as
    `safetensors.torch.save_model` writes tied weights.

    Raises:
        ValueError: the file cannot be read, or does not fit the module.
    """
    try:
        state: State = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{weights} cannot be read as safetensors: {error}") from None
    model = _unwrapped(model)
    own = model.state_dict(keep_vars=True)
    prefix = _common_prefix(state, own)
    state = {name.removeprefix(prefix): x for name, x in state.items()}
    if faults := "; ".join(_faults(model, state, own)):
        raise ValueError(f"{weights} does not fit the model: {faults}")
    return f'{weights}: the prefix "{prefix}" is stripped from all names' if prefix else None


def _unwrapped(model: nn.Module) -> nn.Module:
    """The module in a wrapper, whose names have no prefix."""
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) or hasattr(model, "_orig_mod"):
        model = model.get_submodule("_orig_mod" if hasattr(model, "_orig_mod") else "module")
    return model


def _common_prefix(state: State, own: State) -> str:
    """What wrappers put before all names. The names of a module that is called so itself are left as they are."""
    prefix = ""
    while state and not any(name in own for name in (each.removeprefix(prefix) for each in state)):
        found = (more for more in PREFIXES if all(name.startswith(prefix + more) for name in state))
        if (more := next(found, None)) is None:
            return ""
        prefix += more
    return prefix


def _faults(model: nn.Module, state: State, own: State) -> Iterator[str]:
    """Why weights do not fit; they are in the module when nothing comes."""
    yield from _contradictions(state, own)
    try:
        left = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        yield " ".join(str(error).split())
        return
    loaded = {_place(own[name]) for name in state if name in own}
    if missing := [name for name in left.missing_keys if name not in own or _place(own[name]) not in loaded]:
        yield f"it lacks {_listed(missing)}"
    if left.unexpected_keys:
        yield f"the model has no {_listed(left.unexpected_keys)}"


def _contradictions(state: State, own: State) -> Iterator[str]:
    """Names of one tensor of the module under which the file holds different values."""
    first: dict[object, str] = {}
    for name in (each for each in state if each in own):
        other = first.setdefault(_place(own[name]), name)
        if not torch.equal(state[other], state[name]):
            yield f"{other} and {name} are one tensor of the model, but differ in the file"


def _place(x: object) -> object:
    """Equal for two names of one tensor."""
    if not isinstance(x, Tensor) or is_lazy(x) or x.is_meta or x.numel() == 0:
        return id(x)
    return x.device, x.data_ptr(), x.shape, x.stride(), x.dtype


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
