"""A finished run as a probe sees it: its networks, its examples, the steps to look at."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from overparam.models.losses import LossName
from overparam.models.thin import thin
from overparam.runs.checks import UnsupportedSpec
from overparam.runs.execute import execute
from overparam.runs.run import Run
from overparam.runs.setting import Batch, Setting
from overparam.specs.run import RunSpec


@dataclass(frozen=True)
class Subject:
    """One run, where it happened, and the steps that a probe looks at."""

    run: Run
    setting: Setting
    steps: tuple[int, ...]
    should_stop: Callable[[], bool] = lambda: False

    @property
    def spec(self) -> RunSpec:
        return self.run.spec

    @property
    def loss(self) -> LossName:
        return self.spec.train.loss

    def network(self, step: int) -> nn.Module:
        """The network at a step, in eval mode, as a function of the weights that its mask keeps."""
        state = self.run.state(step)
        return thin(self.setting.model(state).eval(), state.mask)

    def dense_network(self, step: int, probe: object) -> nn.Module:
        """The network at a step, for a probe that would take pruned weights for weights.

        Raises:
            UnsupportedSpec: the run has a mask.
        """
        state = self.run.state(step)
        if state.mask:
            raise UnsupportedSpec(
                f"{type(probe).__name__} counts weights or rows of weights; not defined here for a mask"
            )
        return self.setting.model(state).eval()

    @cached_property
    def start(self) -> nn.Module:
        """The network that training started from."""
        return self.network(self.spec.first_step)

    def train(self, count: int | None = None) -> Batch:
        """The first `count` training examples; all without a number."""
        x, y = self.setting.train
        return x[:count], y[:count]

    def test(self, count: int | None = None) -> Batch:
        """The first `count` test examples; all without a number."""
        x, y = self.setting.splits["test"]
        return x[:count], y[:count]

    def other(self, spec: RunSpec) -> Run:
        """Another run that this one is compared with, trained now if the store lacks it."""
        return execute(Setting(spec, self.setting.execution), should_stop=self.should_stop)
