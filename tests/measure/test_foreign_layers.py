"""Measures on networks of torch.nn that public code is made of: right or refused, and all is left as it was.

These are the quick ones; `test_foreign.py` has every measure, on these networks too.
"""

import pytest

from tests.support.foreign.measures import MEASURES
from tests.support.foreign.network import Foreign
from tests.support.foreign.outcomes import interrupted, outcomes
from tests.support.foreign.torch_layers import layers
from tests.support.foreign.torch_models import models

NETWORKS = [*layers(), *models()]
# One measure of each way through a network: products, rows, layers, passes alone, forward derivatives, whole copies.
QUICK = ("trace", "ggn", "ntk", "noise curve", "linearize", "barrier")


def named(network: Foreign) -> str:
    return network.name


@pytest.mark.parametrize("network", NETWORKS, ids=named)
def test_measures_are_right_or_refuse_and_leave_all_as_it_was(network: Foreign) -> None:
    found = list(outcomes(network, QUICK))
    assert not [str(each) for each in found if each.verdict == "wrong" or each.touched]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("network", [each for each in NETWORKS if each.family == "sharing"], ids=named)
def test_ctrl_c_leaves_shared_weights_as_they_were(network: Foreign, measure: str) -> None:
    found = interrupted(network, measure, at=3)
    assert found.verdict == "right", str(found)
