"""A network to measure: MLP of width 32, trained here on the embedded digits (a few seconds, stored in runs/).

overparam measure docs/results/digits_mlp.py:trained
"""

import torch
from torch import Tensor, nn

import overparam as op
from overparam.data.load import prepare
from overparam.models.build import build
from overparam.rng.torch_generators import torch_generator

SPEC = op.RunSpec(
    data=op.DataSpec(name="digits"),
    model=op.MLP(width=32),
    train=op.TrainSpec(optimizer=op.SGD(lr=0.02), batch_size=32, epochs=25),
)


def trained() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The trained network and its first 500 training examples."""
    examples = prepare(SPEC.data)
    model = build(SPEC.model, examples.input_shape, examples.num_classes, generator=torch_generator(0, "init"))
    model.load_state_dict(op.train(SPEC).weights("final"))
    return model, (torch.from_numpy(examples.train.x[:500]), torch.from_numpy(examples.train.y[:500]))
