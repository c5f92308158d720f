"""Keep freed memory in the process while it trains or measures.

glibc returns large freed blocks to the operating system, and each training step or curvature product pays page faults
to get its activations back: a fifth of the time of a small CNN's step, a seventh of its Hessian product's.
"""

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

# Parameters of mallopt(3) and their values: blocks never come from mmap, the heap grows by 64 MiB and does not shrink;
# and what glibc's own adaptation of its thresholds ends at.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
KEEPING = {M_MMAP_MAX: 0, M_TOP_PAD: 1 << 26, M_TRIM_THRESHOLD: (1 << 31) - 1}
ADAPTED = {M_MMAP_MAX: 1 << 16, M_TOP_PAD: 1 << 17, M_MMAP_THRESHOLD: 1 << 25, M_TRIM_THRESHOLD: 1 << 26}
# Variables by which a user sets them.
OWN = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_TRIM_THRESHOLD_")

_lock = Lock()
_keepers = 0  # blocks under way, of all threads, and processes that keep it for good


def keep_freed_memory() -> bool:
    """Let malloc reuse freed blocks from now on.

    Nothing changes, and False comes back, where the C library is not glibc or the environment sets it in another way.
    """
    global _keepers
    with _lock:
        _keepers += 1
        return _mallopt(KEEPING)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory inside the block and give it back afterwards, unless something else still keeps it.

    glibc's thresholds then stay at the values that its own adaptation would end at.
    """
    global _keepers
    kept = keep_freed_memory()
    try:
        yield
    finally:
        with _lock:
            _keepers -= 1
            if kept and not _keepers:
                _mallopt(ADAPTED)
                ctypes.CDLL(None).malloc_trim(0)


def _mallopt(settings: Mapping[int, int]) -> bool:
    if any(name in os.environ for name in OWN) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return all([mallopt(parameter, value) == 1 for parameter, value in settings.items()])
