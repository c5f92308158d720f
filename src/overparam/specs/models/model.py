"""What a model is, and what follows from its layers. No tensors."""

from collections.abc import Iterator, Sequence

from overparam.identity import Spec
from overparam.specs.models.layers import Convolution, Layer, Shape


class ModelSpec(Spec):
    """An architecture as a value. Fields are hashed; `kind` names it in files."""

    kind: str

    def layers(self, input_shape: Shape, num_classes: int) -> Sequence[Layer]:
        """The layers in order: a `Sequential` of them is the network, and a layer's place is its name there.

        Raises:
            ValueError: the network is not defined for inputs of that shape.
        """
        raise NotImplementedError


def weight_shapes(model: ModelSpec, input_shape: Shape, num_classes: int) -> dict[str, Shape]:
    """Names and shapes of the weights that can be pruned, in the order of the network's parameters.

    Only weight tensors of at least two axes are pruned: those of linear layers and convolutions, never biases or batch
    norm.

    Raises:
        ValueError: the network is not defined for such inputs.

    >>> from overparam.specs import MLP
    >>> weight_shapes(MLP(width=(300, 100)), (1, 28, 28), 10)
    {'1.weight': (300, 784), '3.weight': (100, 300), '5.weight': (10, 100)}
    """
    layers = model.layers(tuple(input_shape), num_classes)
    return {f"{place}.weight": layer.weight for place, layer in enumerate(layers) if layer.weight is not None}


def count_parameters(model: ModelSpec, input_shape: Shape, num_classes: int) -> int:
    """Trainable parameters: weights, biases, and two per channel of batch norm.

    Raises:
        ValueError: the network is not defined for such inputs.

    >>> from overparam.specs import MLP
    >>> count_parameters(MLP(width=(300, 100)), (1, 28, 28), 10)
    266610
    """
    return sum(layer.num_parameters for layer in model.layers(tuple(input_shape), num_classes))


def forward_flops(model: ModelSpec, input_shape: Shape, num_classes: int) -> int:
    """FLOPs of one example's forward pass in linear layers and convolutions, a multiply–add as two.

    Raises:
        ValueError: the network is not defined for such inputs.

    >>> from overparam.specs import MLP
    >>> forward_flops(MLP(width=(300, 100)), (1, 28, 28), 10)
    532400
    """
    return sum(layer.flops(shape) for layer, shape in _with_inputs(model, tuple(input_shape), num_classes))


def convolves(model: ModelSpec, input_shape: Shape, num_classes: int) -> bool:
    """Whether the network has convolutions: it then does more work for each byte that it reads."""
    return any(isinstance(layer, Convolution) for layer in model.layers(tuple(input_shape), num_classes))


def convolves_images(model: ModelSpec, input_shape: Shape, num_classes: int) -> bool:
    """Whether the network convolves images, which is faster with the channels last in memory."""
    layers = model.layers(tuple(input_shape), num_classes)
    return any(isinstance(layer, Convolution) and layer.axes == 2 for layer in layers)


def _with_inputs(model: ModelSpec, shape: Shape, num_classes: int) -> Iterator[tuple[Layer, Shape]]:
    """Each layer with the shape of an example in front of it."""
    for layer in model.layers(shape, num_classes):
        yield layer, shape
        shape = layer.after(shape)
