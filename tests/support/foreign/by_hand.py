"""Networks of timm, MONAI, PyTorch Geometric, pytorchcv and segmentation_models_pytorch, measured by hand.

timm needs torchvision, which does not load beside a CPU build of torch: they are no part of the extra `foreign`. With
them installed, docs/results/foreign_networks.py takes this module.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import monai.networks.nets as medical
import segmentation_models_pytorch as segmentation
import timm
import torch
from pytorchcv.models.preresnet_cifar import CIFARPreResNet
from pytorchcv.models.resnet_cifar import CIFARResNet
from timm.layers import BlurPool2d, EvoNorm2dS0, GatedMlp, GroupNormAct, ScaledStdConv2d
from timm.models.mlp_mixer import MlpMixer, ResBlock, SpatialGatingBlock
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, global_mean_pool
from torch_geometric.nn.dense import DenseGCNConv, DenseGINConv

from tests.support.foreign.network import EXAMPLES, Foreign, signals
from tests.support.foreign.torch_parts import headed

IMAGE, WIDE = signals(3, 16, 16), signals(3, 32, 32)
FOUR: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (4, 4, 4, 4)}
FLAT: dict[str, Any] = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2}
GROUP_NORM, EVO_NORM = partial(GroupNormAct, num_groups=2), partial(EvoNorm2dS0, group_size=2)

TIMM: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": FLAT,
    "deit3_small_patch16_224": FLAT,
    "eva02_tiny_patch14_224": FLAT,
    "beit_base_patch16_224": FLAT,
    "cait_xxs24_224": {**FLAT, "depth_token_only": 1},
    "xcit_nano_12_p16_224": FLAT,
    "swin_tiny_patch4_window7_224": {
        "img_size": 16,
        "embed_dim": 4,
        "depths": (2,),
        "num_heads": (2,),
        "window_size": 2,
    },
    "swinv2_tiny_window8_256": {
        "img_size": 16,
        "embed_dim": 4,
        "depths": (2,),
        "num_heads": (2,),
        "window_size": 2,
    },
    "convnext_atto": FOUR,
    "mambaout_femto": FOUR,
    "resnet18": {"layers": (1, 1, 1, 1), "channels": (4, 4, 4, 4)},
    "seresnet18": {"layers": (1, 1, 1, 1), "channels": (4, 4, 4, 4)},
    "resnetv2_50": {"layers": (1, 1), "channels": (16, 16), "stem_chs": 4},
    "resnetv2_50d_evos": {"layers": (1, 1), "channels": (16, 16), "stem_chs": 4, "norm_layer": EVO_NORM},
    "resnetv2_50d_gn": {"layers": (1, 1), "channels": (16, 16), "stem_chs": 4, "norm_layer": GROUP_NORM},
}


class OverPlaces(nn.Module):
    """Segmentation as classification: the mean over all places."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        found = self.body(x)
        out: Tensor = (found[0] if isinstance(found, tuple | list) else found).flatten(2).mean(2)
        return out


class WholeGraph(nn.Module):
    """One graph whose nodes are the examples: each depends on its neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = GCNConv(4, 6), GATConv(6, 3)
        ring = torch.arange(EXAMPLES)
        self.register_buffer("edges", torch.stack([ring, ring.roll(1)]))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.tanh(self.first(x, self.edges)), self.edges)
        return out


class ManyGraphs(nn.Module):
    """An example is a graph of five nodes in a ring."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = GCNConv(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        count, nodes = x.shape[:2]
        ring, starts = torch.arange(nodes), nodes * torch.arange(count).unsqueeze(1)
        edges = torch.stack([(ring + starts).flatten(), (ring.roll(1) + starts).flatten()])
        hidden = torch.tanh(self.first(x.flatten(0, 1), edges))
        out: Tensor = self.last(global_mean_pool(hidden, torch.arange(count).repeat_interleave(nodes)))
        return out


class DenseGraphs(nn.Module):
    """The same by adjacency matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.first = DenseGCNConv(4, 6)
        self.second = DenseGINConv(nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)), train_eps=True)
        self.last = nn.Linear(6, 3)
        self.register_buffer("near", torch.eye(5).roll(1, 0) + torch.eye(5).roll(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        near = self.near.to(x.dtype)
        out: Tensor = self.last(self.second(torch.tanh(self.first(x, near)), near).mean(1))
        return out


def of_timm(name: str, options: Mapping[str, Any]) -> nn.Module:
    found: nn.Module = timm.create_model(name, num_classes=3, **options)
    return found


def dyn_unet(**options: Any) -> nn.Module:
    return OverPlaces(
        medical.DynUNet(
            spatial_dims=2,
            in_channels=3,
            out_channels=3,
            kernel_size=[3, 3, 3],
            strides=[1, 2, 2],
            upsample_kernel_size=[2, 2],
            filters=[4, 4, 4],
            **options,
        )
    )


def frozen_encoder() -> nn.Module:
    model = segmentation.Unet("resnet18", encoder_depth=2, encoder_weights=None, decoder_channels=(4, 4), classes=3)
    model.encoder.requires_grad_(False)
    return OverPlaces(model)


def in_medicine() -> Iterator[Foreign]:
    unet = partial(medical.UNet, spatial_dims=2, in_channels=3, out_channels=3, channels=(4, 4), strides=(2,))
    vit = partial(
        medical.ViT,
        in_channels=3,
        img_size=(16, 16),
        patch_size=(8, 8),
        hidden_size=8,
        mlp_dim=12,
        num_layers=1,
        num_heads=2,
        classification=True,
        num_classes=3,
        spatial_dims=2,
        post_activation="",
    )
    yield Foreign("MONAI UNet", "segmentation", lambda: OverPlaces(unet()), IMAGE)
    yield Foreign("MONAI DynUNet", "segmentation", dyn_unet, IMAGE)
    yield Foreign("MONAI DynUNet, residual", "segmentation", partial(dyn_unet, res_block=True), IMAGE)
    yield Foreign(
        "MONAI AttentionUnet",
        "segmentation",
        lambda: OverPlaces(
            medical.AttentionUnet(spatial_dims=2, in_channels=3, out_channels=3, channels=(4, 4), strides=(2,))
        ),
        IMAGE,
    )
    yield Foreign(
        "MONAI SegResNet",
        "segmentation",
        lambda: OverPlaces(
            medical.SegResNet(
                spatial_dims=2, init_filters=8, in_channels=3, out_channels=3, blocks_down=(1, 1), blocks_up=(1,)
            )
        ),
        IMAGE,
    )
    yield Foreign(
        "MONAI DenseNet",
        "image",
        lambda: medical.DenseNet(
            spatial_dims=2, in_channels=3, out_channels=3, init_features=4, growth_rate=2, block_config=(1, 1)
        ),
        IMAGE,
    )
    yield Foreign("MONAI ViT", "image", lambda: FirstOf(vit()), IMAGE)
    yield Foreign("smp Unet, frozen encoder", "segmentation", frozen_encoder, WIDE)


class FirstOf(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)[0]
        return out


def in_graphs() -> Iterator[Foreign]:
    nodes = signals(5, 4)
    alone = {"every": "cannot be run on one example", "ntk": "the model fails on inputs"}
    yield Foreign("PyG GCN, GAT on one graph", "graph", WholeGraph, signals(4), alone)
    yield Foreign("PyG GCN on many graphs", "graph", ManyGraphs, nodes)
    yield Foreign("PyG dense GCN, GIN", "graph", DenseGraphs, nodes)


def in_cv() -> Iterator[Foreign]:
    small: dict[str, Any] = {
        "channels": [[4], [4], [4]],
        "init_block_channels": 4,
        "bottleneck": False,
        "in_size": (32, 32),
        "num_classes": 3,
    }
    yield Foreign("pytorchcv ResNet", "image", lambda: CIFARResNet(**small), WIDE)
    yield Foreign("pytorchcv PreResNet", "image", lambda: CIFARPreResNet(**small), WIDE)


def in_timm() -> Iterator[Foreign]:
    for name, options in TIMM.items():
        inputs = IMAGE if "img_size" in options else WIDE
        rounded = 1e-3 if options.get("norm_layer") is EVO_NORM else 1e-5  # its statistics are in float32
        yield Foreign(f"timm {name}", "image", partial(of_timm, name, options), inputs, tolerance=rounded)
    flat: dict[str, Any] = {"num_classes": 3, "img_size": 16, "patch_size": 8, "num_blocks": 1, "embed_dim": 8}
    yield Foreign("timm MLP-Mixer", "image", lambda: MlpMixer(**flat), IMAGE)
    yield Foreign("timm ResMLP", "image", lambda: MlpMixer(**flat, block_layer=ResBlock, mlp_ratio=2), IMAGE)
    yield Foreign(
        "timm gMLP",
        "image",
        lambda: MlpMixer(**flat, block_layer=SpatialGatingBlock, mlp_layer=GatedMlp, mlp_ratio=2),
        IMAGE,
    )
    yield Foreign(
        "timm standardized convolution, blurred pooling",
        "image",
        lambda: headed(
            ScaledStdConv2d(3, 4, 3, bias=True), nn.GELU(), BlurPool2d(4), ScaledStdConv2d(4, 4, 3), features=256
        ),
        IMAGE,
    )


def networks() -> list[Foreign]:
    sources = {"timm": in_timm, "MONAI, smp": in_medicine, "PyTorch Geometric": in_graphs, "pytorchcv": in_cv}
    return [replace(network, library=library) for library, networks in sources.items() for network in networks()]
