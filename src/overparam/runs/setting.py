"""What a run happens in: its examples, its network, the order of its examples. Made once for a run and passed on."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from overparam.data.load import prepare
from overparam.data.types import Examples, Split
from overparam.foundations.torch_generators import torch_generator
from overparam.models.build import build
from overparam.models.taylor.lazy import as_trained
from overparam.runs.execution import Execution
from overparam.runs.training.loop import Moment, train_loop
from overparam.runs.training.state import State
from overparam.runs.training.timetable import Timetable
from overparam.specs.models.layers import Shape
from overparam.specs.models.model import convolves_images, weight_shapes
from overparam.specs.run import RunSpec

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Setting:
    """A run's examples, network and order. Making one costs nothing: the data is loaded when something asks for it."""

    spec: RunSpec
    execution: Execution

    @cached_property
    def examples(self) -> Examples:
        """What the run's data spec selects.

        Raises:
            DataError: the data set is missing or damaged, or has too few examples.
        """
        return prepare(self.spec.data, data_dir=self.execution.data_dir)

    @cached_property
    def splits(self) -> dict[str, Batch]:
        """Inputs and labels of "train", "val" and "test", on the device of the run."""
        return {name: self._on_device(getattr(self.examples, name)) for name in ("train", "val", "test")}

    @property
    def train(self) -> Batch:
        return self.splits["train"]

    @cached_property
    def timetable(self) -> Timetable:
        return Timetable(self.spec.train, len(self.examples.train.y))

    @cached_property
    def weight_shapes(self) -> dict[str, Shape]:
        """Names and shapes of the weights that can be pruned, in the order of the network."""
        return weight_shapes(self.spec.model, self.examples.input_shape, self.examples.num_classes)

    @cached_property
    def _layout(self) -> torch.memory_format:
        """Channels-last convolutions are about 1.4× faster on the CPU and at least as fast on a GPU."""
        images = convolves_images(self.spec.model, self.examples.input_shape, self.examples.num_classes)
        return torch.channels_last if images else torch.contiguous_format

    def _on_device(self, split: Split) -> Batch:
        x, y = torch.from_numpy(split.x), torch.from_numpy(split.y)
        return x.to(self.execution.device, memory_format=self._layout), y.to(self.execution.device)

    def model(self, state: State | None = None) -> nn.Module:
        """The network that the run trains, as initialized or with a state's weights and buffers."""
        stream = self.spec.init_stream
        generator = torch_generator(self.spec.stream_seed(stream), stream)
        model = build(self.spec.model, self.examples.input_shape, self.examples.num_classes, generator=generator)
        model = as_trained(model, self.spec.train.linearize, self.spec.train.lazy_scale)
        model = model.to(self.execution.device)
        model.to(memory_format=self._layout)  # type: ignore[call-overload]
        if state is not None:
            model.load_state_dict({**state.weights, **state.buffers})
        return model

    def order(self, epoch: int) -> Tensor:
        """The permutation of the training examples in an epoch."""
        generator = torch_generator(self.spec.stream_seed("order"), "order", epoch)
        return torch.randperm(len(self.examples.train.y), generator=generator, device="cpu")

    def moments(
        self,
        start: State | None,
        stops: frozenset[int],
        targets: tuple[float, ...] = (),
        last_loss: float | None = None,
    ) -> Iterator[Moment]:
        """The run from `start` on, with the loss targets that it still has to meet."""
        x, y = self.train
        return train_loop(
            self.model(),
            x,
            y,
            self.spec.train,
            order=self.order,
            stops=stops,
            start=start,
            targets=targets,
            last_loss=last_loss,
        )
