"""The models that a run can have. A new one is a file of its own and a member of this union."""

from typing import Annotated

from pydantic import Field

from overparam.specs.models.cnn import CNN
from overparam.specs.models.mlp import MLP

AnyModel = Annotated[MLP | CNN, Field(discriminator="kind")]
