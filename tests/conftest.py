"""Shared by all tests: no test reads or writes the user's cache, and hypothesis is not timed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

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
