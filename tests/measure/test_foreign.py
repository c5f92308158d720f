"""Every measure on networks of other libraries: right, or refused with the true reason; and all is left as it was.

The networks of `transformers` are built from small configurations; `make test-slow` installs what they need.
"""

from importlib.util import find_spec

import pytest

if find_spec("transformers") is None:  # found only: `library` imports it its own way
    pytest.skip("needs the extra `foreign`", allow_module_level=True)

from tests.support.foreign.catalogue import networks
from tests.support.foreign.measures import MEASURES
from tests.support.foreign.network import Foreign
from tests.support.foreign.outcomes import interrupted, outcomes

pytestmark = pytest.mark.slow
NETWORKS = networks()
PASSES = 6  # Ctrl-C comes in one of the first passes, another one for each measure


def named(network: Foreign) -> str:
    return network.name


def test_there_are_sixty_networks_of_other_libraries() -> None:
    assert len({network.name for network in NETWORKS}) == len(NETWORKS)
    assert sum(network.library != "torch" for network in NETWORKS) >= 60


@pytest.mark.parametrize("network", NETWORKS, ids=named)
def test_measures_are_right_or_refuse_and_leave_all_as_it_was(network: Foreign) -> None:
    found = list(outcomes(network))
    assert not [str(each) for each in found if each.verdict == "wrong" or each.touched]


@pytest.mark.parametrize("network", NETWORKS, ids=named)
def test_ctrl_c_leaves_all_as_it_was(network: Foreign) -> None:
    found = [interrupted(network, name, 1 + i % PASSES) for i, name in enumerate(MEASURES)]
    assert not [str(each) for each in found if each.verdict == "wrong" or each.touched]
    assert any("interrupted" in each.words for each in found)
