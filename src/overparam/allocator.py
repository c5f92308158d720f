"""Keep freed memory in the process.

glibc returns every freed block of some size to the operating system, and each training step pays page faults to get
its activations back: a fifth of the time of a small CNN. Processes that exist to train call `keep_freed_memory`.
"""

import ctypes

# Parameters of mallopt(3): blocks never come from mmap, the heap grows by 64 MiB and does not shrink.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
SETTINGS = {M_MMAP_MAX: 0, M_TOP_PAD: 1 << 26, M_TRIM_THRESHOLD: (1 << 31) - 1}


def keep_freed_memory() -> bool:
    """Tell malloc to reuse freed blocks. False where the C library is not glibc; nothing changes there."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return all([mallopt(parameter, value) == 1 for parameter, value in SETTINGS.items()])
