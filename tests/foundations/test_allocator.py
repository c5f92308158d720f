"""Freed memory stays in the process, so that the next step does not pay page faults for it."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource
from overparam.foundations import allocator
{prepare}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def use_and_free():
    block = libc.malloc(1 << 26)
    ctypes.memset(block, 1, 1 << 26)
    libc.free(block)
use_and_free()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use_and_free()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(prepare: str, **environment: str) -> int:
    command = [sys.executable, "-c", FAULTS.format(prepare=prepare)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_freed_block_is_reused_without_page_faults() -> None:
    assert faults("") > 10_000  # what the default costs: 64 MiB in pages of 4 KiB, ten times
    assert faults("assert allocator.keep_freed_memory()") < 1_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_the_process_is_as_before_when_the_block_ends() -> None:
    assert faults("with allocator.freed_memory_kept(): pass") > 10_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.parametrize(
    "keeper", ["allocator.keep_freed_memory()", "outer = allocator.freed_memory_kept(); outer.__enter__()"]
)
def test_an_inner_block_ends_nothing_that_an_outer_one_keeps(keeper: str) -> None:
    assert faults(f"{keeper}\nwith allocator.freed_memory_kept(): pass") < 1_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.parametrize(
    "environment", [{"MALLOC_TOP_PAD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.top_pad=131072"}]
)
def test_settings_of_the_environment_stay(environment: dict[str, str]) -> None:
    assert faults("assert not allocator.keep_freed_memory()", **environment) > 10_000
