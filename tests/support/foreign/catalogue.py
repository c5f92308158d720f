"""All foreign networks that are built without a person: those of torch.nn, and those of `transformers`."""

from tests.support.foreign.network import Foreign
from tests.support.foreign.torch_layers import layers
from tests.support.foreign.torch_models import models
from tests.support.foreign.transformers_signals import signal_networks
from tests.support.foreign.transformers_text import text


def networks() -> list[Foreign]:
    return [*layers(), *models(), *text(), *signal_networks()]
