"""A network to measure: MLP of width 32, trained here on the embedded digits (a few seconds, stored in runs/).

overparam measure docs/results/digits_mlp.py:trained
"""

from torch import Tensor, nn

import overparam as op

SPEC = op.RunSpec(
    data=op.DataSpec(name="digits"),
    model=op.MLP(width=32),
    train=op.TrainSpec(optimizer=op.SGD(lr=0.02), batch_size=32, epochs=25),
)


def trained() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The trained network and its first 500 training examples."""
    run = op.train(SPEC)
    x, y = run.data()
    return run.model(), (x[:500], y[:500])
