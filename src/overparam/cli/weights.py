"""Weights for a user's own module from a safetensors file, also of a wrapped model or without tied names."""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and its relatives, and of torch.compile
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar")
LISTED = ".index.json"  # of weights in several files
INSIDE = ("state_dict", "model_state_dict", "model")  # where trainers put the weights, beside epochs and optimizers
SHOWN = 3  # names in an error

State = Mapping[str, Tensor]


def refuse_pickle(weights: Path) -> None:
    """Say how to convert a file of another kind, before anything is loaded.

    Raises:
        ValueError: the file is a pickle by its name or its first bytes, or the list of the parts of weights.
    """
    if weights.name.endswith(LISTED):
        raise ValueError(
            f"{weights} only lists the files that hold the parts of the weights, and one file is read: join the parts, "
            "with safetensors.torch.load_file of each and save_file of all, and pass that file"
        )
    by_name = weights.suffix.lower() in PICKLES
    if by_name or _starts_as_pickle(weights):
        sign = f"name ({weights.suffix})" if by_name else "first bytes"
        raise ValueError(f"{weights} is a pickle by its {sign}, {_how_to_convert(weights)}")


def _how_to_convert(pickle: Path) -> str:
    target = pickle.with_suffix(".safetensors")
    if target == pickle:  # which would lead `torch.load` astray
        return f"not what its name says; rename it to {pickle.with_suffix('.pt')} and pass that, to be told what to do"
    return (
        "which may run any program when it is opened, so that only safetensors are read; if you trust it, make "
        f"{target} with these two lines of Python and pass that:\n"
        f'import torch, safetensors.torch; state = torch.load({str(pickle)!r}, map_location="cpu")\n'
        "safetensors.torch.save_file({name: x.contiguous().clone() for name, x in next((state[key] for key in "
        f"{INSIDE} if isinstance(state.get(key), dict)), state).items()}}, {str(target)!r})"
    )


def _starts_as_pickle(weights: Path) -> bool:
    """Whether a file is what `torch.save` writes, now or long ago. Safetensors may start with the same two bytes."""
    try:
        with weights.open("rb") as stream:
            start = stream.read(9)
        if start.startswith(b"PK"):
            with zipfile.ZipFile(weights) as archive:
                return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False  # what is wrong is said when it is loaded
    return start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5") and start[8:] != b"{"


def load_weights(model: nn.Module, weights: Path) -> str | None:
    """Put weights into a module. What was changed is said: names that were stripped, numbers that were rounded.

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
    rounded: list[str] = []
    faults = [*_contradictions(state, own), *_changed_by_type(state, own, rounded)] or _load(model, state, own)
    if faults:
        raise ValueError(f"{weights} does not fit the model: {'; '.join(faults)}")
    changed = [f'the prefix "{prefix}" is stripped from all names'] if prefix else []
    changed += [f"rounded to the type that the model has: {_listed(rounded)}"] if rounded else []
    return f"{weights}: {'; '.join(changed)}" if changed else None


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


def _load(model: nn.Module, state: State, own: State) -> list[str]:
    """Why weights do not fit; they are in the module when there is no reason."""
    try:
        left = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        return [" ".join(str(error).split())]
    loaded = {_place(own[name]) for name in state if name in own}
    missing = [name for name in left.missing_keys if name not in own or _place(own[name]) not in loaded]
    faults = [f"it lacks {_listed(missing)}"] if missing else []
    return faults + ([f"the model has no {_listed(left.unexpected_keys)}"] if left.unexpected_keys else [])


def _contradictions(state: State, own: State) -> Iterator[str]:
    """Names of one tensor of the module under which the file holds different values."""
    first: dict[object, str] = {}
    for name in (each for each in state if each in own):
        other = first.setdefault(_place(own[name]), name)
        if other != name and not _equal(state[other], state[name]):
            yield f"{other} and {name} are one tensor of the model, but differ in the file"


def _equal(a: Tensor, b: Tensor) -> bool:
    """In every bit, so that NaN equals itself, and for types that have no arithmetic."""
    bits = (x.reshape(-1).view(torch.uint8) for x in (a, b))
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)


def _changed_by_type(state: State, own: State, rounded: list[str]) -> Iterator[str]:
    """Tensors whose numbers are not those of the file once they have the module's type; rounding is only noted.

    Whole numbers in place of floats are quantized or packed weights, which mean nothing without their scales.
    """
    for name, x in state.items():
        mine = own.get(name)
        if not isinstance(mine, Tensor) or mine.dtype == x.dtype or (not is_lazy(mine) and mine.shape != x.shape):
            continue
        types = f"{_named(x.dtype)} in the file but {_named(mine.dtype)} in the model"
        if (kind := _kind(mine.dtype)) != _kind(x.dtype):
            yield f"{name} is {types}; only {kind} can be loaded into {kind}: convert it first"
        elif beyond := _beyond(x, mine.dtype):
            yield f"{name} is {types}, which cannot hold {beyond:,} of its values"
        elif _differing(x, mine.dtype):
            rounded.append(f"{name} ({_named(x.dtype)} to {_named(mine.dtype)})")


def _kind(dtype: torch.dtype) -> str:
    return "floats" if dtype.is_floating_point else "complex numbers" if dtype.is_complex else "whole numbers"


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _beyond(x: Tensor, dtype: torch.dtype) -> int:
    """How many values become infinite or, of whole numbers, others."""
    if _kind(dtype) == "whole numbers":
        return _differing(x, dtype)
    return int(torch.count_nonzero(_wide(x).isfinite() & ~_wide(x.to(dtype)).isfinite()))


def _differing(x: Tensor, dtype: torch.dtype) -> int:
    before, after = _wide(x), _wide(x.to(dtype))
    return int(torch.count_nonzero((before != after) & (before == before)))


def _wide(x: Tensor) -> Tensor:
    """The same numbers in a type with arithmetic."""
    if x.is_complex():
        return x.to(torch.complex128)
    return x.to(torch.float64 if x.is_floating_point() else torch.int64)


def _place(x: object) -> object:
    """Equal for two names of one tensor."""
    if not isinstance(x, Tensor) or is_lazy(x) or x.is_meta or x.numel() == 0:
        return id(x)
    return x.device, x.data_ptr(), x.shape, x.stride(), x.dtype


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
