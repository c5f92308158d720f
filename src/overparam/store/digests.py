"""Digests of arrays: names, types, shapes and bytes, independent of the file format."""

import hashlib
from collections.abc import Mapping

import numpy as np


def digest_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """BLAKE2b-128 over the sorted names with each array's dtype, shape and bytes, in hexadecimal."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        state.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        state.update(array.tobytes())
    return state.hexdigest()
