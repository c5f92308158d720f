"""torch generators for named streams."""

import torch

from overparam.foundations.keys import key


def torch_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """CPU generator of the stream (seed, purpose).

    Always on the CPU: initial weights and data order are then the same on every device.
    """
    generator = torch.Generator(device="cpu")
    generator.manual_seed(key(seed, *purpose))
    return generator
