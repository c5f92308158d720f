"""Networks of `transformers` on images and sound, built from small configurations: nothing is loaded."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from tests.support.foreign.library import transformers
from tests.support.foreign.network import Foreign, signals
from tests.support.foreign.transformers_text import Pooled

IMAGE = signals(3, 16, 16)
SMALL = signals(3, 8, 8)
PATCHES = {"image_size": 8, "patch_size": 4, "num_channels": 3}
BODY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
STAGES = {"hidden_sizes": [4, 6], "depths": [1, 1]}
Options = dict[str, Any]

IMAGES: dict[str, tuple[str, Options]] = {
    "ViT": ("ViT", {**PATCHES, **BODY}),
    "DeiT": ("DeiT", {**PATCHES, **BODY}),
    "BEiT": ("Beit", {**PATCHES, **BODY, "use_relative_position_bias": True, "vocab_size": 8}),
    "data2vec, images": ("Data2VecVision", {**PATCHES, **BODY}),
    "DINOv2": ("Dinov2", {**PATCHES, **{k: v for k, v in BODY.items() if k != "intermediate_size"}, "mlp_ratio": 1}),
    "ViT-MSN": ("ViTMSN", {**PATCHES, **BODY}),
    "I-JEPA": ("IJepa", {**PATCHES, **BODY}),
    "SigLIP": ("Siglip", {"vision_config": {**PATCHES, **BODY}, "text_config": {**BODY, "vocab_size": 24}}),
    "CLIP, images": (
        "CLIP",
        {
            "vision_config": {**PATCHES, **BODY, "projection_dim": 4},
            "text_config": {**BODY, "vocab_size": 24, "projection_dim": 4},
            "projection_dim": 4,
        },
    ),
    "Swin": (
        "Swin",
        {
            "image_size": 16,
            "patch_size": 4,
            "embed_dim": 4,
            "depths": [2],
            "num_heads": [2],
            "window_size": 2,
            "mlp_ratio": 2.0,
        },
    ),
    "Swin V2": (
        "Swinv2",
        {
            "image_size": 16,
            "patch_size": 4,
            "embed_dim": 4,
            "depths": [2],
            "num_heads": [2],
            "window_size": 2,
            "mlp_ratio": 2.0,
        },
    ),
    "Hiera": (
        "Hiera",
        {
            "image_size": [16, 16],
            "patch_size": [3, 3],
            "patch_stride": [2, 2],
            "patch_padding": [1, 1],
            "embed_dim": 4,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "mlp_ratio": 2.0,
            "masked_unit_size": [4, 4],
            "masked_unit_attention": [True, False],
            "num_query_pool": 1,
            "query_stride": [2, 2],
        },
    ),
    "ConvNeXt": ("ConvNext", {"hidden_sizes": [4], "depths": [1], "num_stages": 1, "layer_scale_init_value": 0.1}),
    "ConvNeXt V2": ("ConvNextV2", {"hidden_sizes": [4], "depths": [1], "num_stages": 1}),
    "ResNet": ("ResNet", {"embedding_size": 4, **STAGES, "layer_type": "basic"}),
    "ResNet, bottleneck": (
        "ResNet",
        {"embedding_size": 4, "hidden_sizes": [8], "depths": [1], "layer_type": "bottleneck"},
    ),
    "RegNet": ("RegNet", {"embedding_size": 4, **STAGES, "groups_width": 2, "layer_type": "y"}),
    "BiT": ("Bit", {"embedding_size": 4, "hidden_sizes": [8], "depths": [1], "num_groups": 2}),
    "MobileNet V2": (
        "MobileNetV2",
        {
            "depth_multiplier": 0.02,
            "depth_divisible_by": 2,
            "min_depth": 2,
            "finegrained_output": False,
            "expand_ratio": 1.0,
        },
    ),
    "EfficientNet": (
        "EfficientNet",
        {
            "width_coefficient": 0.0625,
            "depth_coefficient": 1.0,
            "image_size": 16,
            "hidden_dim": 80,
            "depth_divisor": 2,
            "in_channels": [32, 16],
            "out_channels": [16, 32],
            "kernel_sizes": [3, 3],
            "strides": [1, 2],
            "num_block_repeats": [1, 1],
            "expand_ratios": [1, 2],
            "depthwise_padding": [],
        },
    ),
    "MobileNet V1": ("MobileNetV1", {"depth_multiplier": 0.02, "min_depth": 2}),
    "PVT": (
        "Pvt",
        {
            "image_size": 16,
            "hidden_sizes": [4, 4],
            "depths": [1, 1],
            "num_encoder_blocks": 2,
            "patch_sizes": [4, 2],
            "strides": [4, 2],
            "num_attention_heads": [1, 2],
            "sequence_reduction_ratios": [2, 1],
            "mlp_ratios": [2, 2],
        },
    ),
    "PVT v2": (
        "PvtV2",
        {
            "image_size": 16,
            "hidden_sizes": [4, 4],
            "depths": [1, 1],
            "num_encoder_blocks": 2,
            "patch_sizes": [3, 3],
            "strides": [4, 2],
            "num_attention_heads": [1, 2],
            "sr_ratios": [2, 1],
            "mlp_ratios": [2, 2],
        },
    ),
    "PoolFormer": (
        "PoolFormer",
        {
            "hidden_sizes": [4, 4],
            "depths": [1, 1],
            "num_encoder_blocks": 2,
            "patch_sizes": [3, 3],
            "strides": [4, 2],
            "padding": [1, 1],
            "mlp_ratio": 2.0,
            "layer_scale_init_value": 0.1,
        },
    ),
    "SegFormer": (
        "Segformer",
        {
            "hidden_sizes": [4, 4],
            "depths": [1, 1],
            "num_encoder_blocks": 2,
            "patch_sizes": [3, 3],
            "strides": [4, 2],
            "sr_ratios": [2, 1],
            "num_attention_heads": [1, 2],
            "mlp_ratios": [2, 2],
        },
    ),
    "CvT": (
        "Cvt",
        {
            "embed_dim": [4],
            "num_heads": [2],
            "depth": [1],
            "patch_sizes": [3],
            "patch_stride": [4],
            "patch_padding": [1],
            "mlp_ratio": [2.0],
            "cls_token": [True],
            "qkv_bias": [True],
            "drop_path_rate": [0.0],
            "drop_rate": [0.0],
            "attention_drop_rate": [0.0],
            "qkv_projection_method": ["dw_bn"],
            "kernel_qkv": [3],
            "padding_kv": [1],
            "stride_kv": [2],
            "padding_q": [1],
            "stride_q": [1],
        },
    ),
    "LeViT": (
        "Levit",
        {
            "image_size": 32,
            "hidden_sizes": [8, 8, 8],
            "num_attention_heads": [1, 1, 1],
            "depths": [1, 1, 1],
            "key_dim": [4, 4, 4],
            "drop_path_rate": 0,
            "mlp_ratio": [1, 1, 1],
            "attention_ratio": [1, 1, 1],
        },
    ),
    "FocalNet": (
        "FocalNet",
        {
            "image_size": 16,
            "patch_size": 4,
            "embed_dim": 4,
            "hidden_sizes": [4],
            "depths": [1],
            "focal_levels": [1],
            "focal_windows": [3],
            "mlp_ratio": 2.0,
        },
    ),
    "SwiftFormer": (
        "SwiftFormer",
        {
            "image_size": 16,
            "depths": [1, 1],
            "embed_dims": [4, 6],
            "mlp_ratio": 2,
            "downsamples": [True, False],
            "layer_scale_init_value": 0.1,
        },
    ),
    "TextNet": (
        "TextNet",
        {
            "stem_out_channels": 4,
            "hidden_sizes": [4, 4, 4, 4, 4],
            "conv_layer_kernel_sizes": [[[3, 3]], [[3, 1]], [[1, 3]], [[3, 3]]],
            "conv_layer_strides": [[1], [2], [1], [1]],
        },
    ),
    "MobileViT": (
        "MobileViT",
        {
            "image_size": 32,
            "patch_size": 2,
            "hidden_sizes": [4, 4, 4],
            "neck_hidden_sizes": [4, 4, 4, 4, 4, 4, 8],
            "num_attention_heads": 2,
            "mlp_ratio": 1.0,
            "expand_ratio": 1.0,
        },
    ),
}
WIDE = ("LeViT", "MobileViT", "MobileNet V1", "MobileNet V2")
FLAT = ("ViT", "DeiT", "BEiT", "data2vec, images", "DINOv2", "ViT-MSN", "I-JEPA", "SigLIP", "CLIP, images")
INPUTS = {**dict.fromkeys(WIDE, signals(3, 32, 32)), **dict.fromkeys(FLAT, SMALL)}
# PyTorch's own gradient of one CvT example alone is wrong on the CPU; that of several is right.
ALONE: dict[str, str | None] = {
    "noise scale": "PyTorch differentiates an operation of the model wrongly in small batches"
}
WAVES: Options = {
    **BODY,
    "conv_dim": (4, 4),
    "conv_stride": (4, 2),
    "conv_kernel": (6, 3),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 6,
    "feat_extract_norm": "group",
}
SOUNDS: dict[str, tuple[str, Options]] = {
    "wav2vec 2.0": ("Wav2Vec2", WAVES),
    "wav2vec 2.0, layer norm": (
        "Wav2Vec2",
        {**WAVES, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
    ),
    "HuBERT": ("Hubert", WAVES),
    "WavLM": ("WavLM", {**WAVES, "num_buckets": 8, "max_bucket_distance": 16}),
    "UniSpeech": ("UniSpeech", WAVES),
    "SEW": ("SEW", {**WAVES, "squeeze_factor": 2}),
}
WAVE = signals(64)


def image_classifier(kind: str, options: Options, attention: str | None = None) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(**{"num_labels": 3, "num_channels": 3, **options})
    if attention is not None:
        config._attn_implementation = attention
    found: nn.Module = getattr(transformers, f"{kind}ForImageClassification")(config)
    return found


def sound_classifier(kind: str, options: Options) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(**{"num_labels": 3, **options})
    found: nn.Module = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    return found


def spectrograms() -> nn.Module:
    config = transformers.ASTConfig(
        **BODY, patch_size=4, frequency_stride=4, time_stride=4, max_length=12, num_mel_bins=8, num_labels=3
    )
    found: nn.Module = transformers.ASTForAudioClassification(config)
    return found


class Whispered(nn.Module):
    """The encoder of Whisper, and the mean over time."""

    def __init__(self) -> None:
        super().__init__()
        config = transformers.WhisperConfig(
            vocab_size=24,
            num_mel_bins=4,
            d_model=8,
            encoder_layers=1,
            encoder_attention_heads=2,
            encoder_ffn_dim=12,
            max_source_positions=6,
            decoder_layers=1,
            decoder_attention_heads=2,
            decoder_ffn_dim=12,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
        self.body, self.head = transformers.WhisperModel(config).encoder, nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x).last_hidden_state.mean(1))
        return out


def images() -> Iterator[Foreign]:
    for name, (kind, options) in IMAGES.items():
        refused = ALONE if name == "CvT" else {}
        yield Foreign(name, "image", partial(image_classifier, kind, options), INPUTS.get(name, IMAGE), refused)
    yield Foreign("ViT, eager", "image", lambda: image_classifier("ViT", {**PATCHES, **BODY}, "eager"), SMALL)
    yield Foreign("ViT, float32", "image", lambda: image_classifier("ViT", {**PATCHES, **BODY}), SMALL, single=True)
    yield Foreign("ResNet, float32", "image", lambda: image_classifier(*IMAGES["ResNet"]), IMAGE, single=True)


def sounds() -> Iterator[Foreign]:
    for name, (kind, options) in SOUNDS.items():
        yield Foreign(name, "sound", partial(sound_classifier, kind, options), WAVE)
    yield Foreign("AST", "sound", spectrograms, signals(12, 8))
    yield Foreign("Whisper, encoder", "sound", Whispered, signals(4, 12))
    yield Foreign(
        "wav2vec 2.0 with its mask",
        "refused",
        lambda: sound_classifier("Wav2Vec2", WAVES),
        WAVE,
        {"every": "no output depends on .*masked_spec_embed", "barrier": None, "flatness": None},
        held=False,
    )
    yield Foreign(
        "ViT with its pooler",
        "refused",
        lambda: Pooled(transformers.ViTModel(transformers.ViTConfig(**PATCHES, **BODY)), 8),
        SMALL,
        {"every": "no output depends on .*pooler", "barrier": None, "flatness": None},
        held=False,
    )


def signal_networks() -> list[Foreign]:
    return [replace(network, library="transformers") for network in (*images(), *sounds())]
