"""Identity: validated spec → canonical JSON → RunId.

Rules. Every field of a spec is hashed, together with the `semantics` of its class, a small integer that is
raised when the numbers the component produces change. A field that was added after the first release is left
out while it equals its frozen `neutral` value, so that ids given before it existed stay valid; the field's
default may change later, its neutral value may not. A nested spec marked `is_run` enters by its own id: the
ids of a run and of its parents form a Merkle chain.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NewType, Self

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np

RunId = NewType("RunId", str)


class Spec(BaseModel):
    """Base of everything that is hashed: frozen, closed to unknown fields, cheap to build."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    semantics: ClassVar[int] = 1
    neutral: ClassVar[Mapping[str, Any]] = {}
    is_run: ClassVar[bool] = False

    def __init__(self, /, *values: Any, **fields: Any) -> None:
        """Fields by name, or in their order as a function takes them; `kind` is fixed and has no place."""
        names = [name for name in type(self).model_fields if name != "kind"]
        if len(values) > len(names):
            raise TypeError(f"{type(self).__name__} takes {len(names)} values ({', '.join(names)}), not {len(values)}")
        placed = dict(zip(names, values, strict=False))
        if twice := placed.keys() & fields.keys():
            raise TypeError(f"{type(self).__name__} got two values for {', '.join(sorted(twice))}")
        super().__init__(**placed, **fields)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields replaced, validated like any other spec."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | dict(update or {}))

    @cached_property
    def canonical_text(self) -> str:
        """Canonical JSON, made once: a run is asked for its id far more often than it is built."""
        return canonical_json(self)

    def __hash__(self) -> int:
        return hash(self.canonical_text)


def canonical(value: Any) -> Any:
    """JSON-ready form of a validated value in which equal specs are equal."""
    if isinstance(value, Spec):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        kept = {k: v for k, v in fields.items() if not (k in value.neutral and v == value.neutral[k])}
        return {k: _child(v) for k, v in kept.items()} | {"semantics": value.semantics}
    if isinstance(value, Mapping):
        return {str(k): _child(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_child(v) for v in value]
    if isinstance(value, float):
        return value + 0.0  # −0.0 and 0.0 are one value
    if value is None or isinstance(value, (str, bool, int)):
        return value
    raise TypeError(f"cannot hash a {type(value).__name__}: {value!r}; specs hold only plain values")


def _child(value: Any) -> Any:
    return {"run": run_id(value)} if isinstance(value, Spec) and value.is_run else canonical(value)


def canonical_json(value: Any) -> str:
    """Canonical form as text: sorted keys, no white space, shortest round-trip floats."""
    return json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_text(text: str) -> str:
    """BLAKE2b-128 of a text, in hexadecimal."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def run_id(spec: Spec) -> RunId:
    """32 hexadecimal digits that name everything which changes a trained network's numbers.

    Neither data nor weights are needed. Device, threads, workers and paths do not enter.
    """
    return RunId(digest_text(spec.canonical_text))


def digest_arrays(arrays: Mapping[str, "np.ndarray"]) -> str:
    """BLAKE2b-128 over the sorted names with each array's dtype, shape and bytes, in hexadecimal.

    Independent of the file format. A number without axes counts as one of shape (1,).
    """
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        state.update(f"{name}|{array.dtype.str}|{array.shape or (1,)}|".encode())
        state.update(array.data if array.flags.c_contiguous else array.tobytes())  # without a copy where it can
    return state.hexdigest()
