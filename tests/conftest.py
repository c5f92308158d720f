"""Shared by all tests: one thread each, the user's cache is left alone, hypothesis is not timed, no needless worker."""

import os
from collections.abc import Iterator
from pathlib import Path

# Tests run side by side, and two pools of threads on the same cores make small products twenty times slower. Read when
# torch and BLAS are loaded, here and in the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# The networks of other libraries are imported where these are: by test_foreign.py, and by hand.
collect_ignore_glob = ["support/foreign/*"]

# The gate sees the same examples every time; `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile("overparam", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True, max_examples=500)
settings.load_profile("overparam")


@pytest.fixture(autouse=True, scope="session")
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Decoded data of the whole test session, apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("OVERPARAM_CACHE", str(folder))
        yield folder


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What asks for local workers computes in this process: a worker loads torch for seconds."""
    from overparam.lab.backends.choose import BACKENDS
    from tests.support.in_process import InProcess

    monkeypatch.setitem(BACKENDS, "local", InProcess)
