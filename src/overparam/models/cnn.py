"""Three blocks of (3×3 conv – BN – activation)×2 and 2× max-pooling, then two linear layers.

Images (C, H, W) use two-dimensional convolutions, signals (L,) one-dimensional ones.
"""

from torch import Tensor, nn

from overparam.models.activations import activation
from overparam.specs.models.cnn import CNN
from overparam.specs.models.layers import HIDDEN, channels_and_spatial


class AddChannel(nn.Module):
    """(N, L) → (N, 1, L)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(1)


def build_cnn(spec: CNN, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Channels c, 2c, 4c; spatial sizes halve (rounded down) three times.

    Raises:
        ValueError: the input is smaller than 8 along a spatial axis, so that nothing is left after pooling.
    """
    channels, spatial = channels_and_spatial(input_shape)
    signal = len(spatial) == 1
    layers: list[nn.Module] = [AddChannel()] if signal else []
    for out_channels in (spec.channels, 2 * spec.channels, 4 * spec.channels):
        layers += _block(spec, channels, out_channels, signal)
        channels, spatial = out_channels, tuple(size // 2 for size in spatial)
    num_features = channels
    for size in spatial:
        num_features *= size
    head = [nn.Flatten(), nn.Linear(num_features, HIDDEN), activation(spec.activation), nn.Linear(HIDDEN, num_classes)]
    return nn.Sequential(*layers, *head)


def _block(spec: CNN, in_channels: int, out_channels: int, signal: bool) -> list[nn.Module]:
    conv, norm = (nn.Conv1d, nn.BatchNorm1d) if signal else (nn.Conv2d, nn.BatchNorm2d)
    layers: list[nn.Module] = []
    for fan_in in (in_channels, out_channels):
        layers.append(conv(fan_in, out_channels, kernel_size=3, padding=1))
        layers += [norm(out_channels)] if spec.batch_norm else []
        layers.append(activation(spec.activation))
    return [*layers, nn.MaxPool1d(2) if signal else nn.MaxPool2d(2)]
