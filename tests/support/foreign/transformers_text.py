"""Text networks of `transformers`, built from small configurations: nothing is loaded."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from tests.support.foreign.library import transformers
from tests.support.foreign.network import Foreign, padded_tokens, tokens
from tests.support.foreign.torch_layers import LOSES_DIGITS
from tests.support.foreign.torch_models import BY_BATCH

VOCABULARY, LENGTH = 24, 6
SHARED = {"vocab_size": VOCABULARY, "num_labels": 3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BODY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
POSITIONS = {"max_position_embeddings": 16}
DECODER = {**BODY, **POSITIONS, "num_key_value_heads": 1, "head_dim": 4}
GPT = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}
Options = dict[str, Any]

ENCODERS: dict[str, tuple[str, Options]] = {
    "BERT": ("Bert", {**BODY, **POSITIONS}),
    "RoBERTa": ("Roberta", {**BODY, **POSITIONS, "pad_token_id": 0}),
    "DistilBERT": ("DistilBert", {"dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 12, **POSITIONS}),
    "ALBERT": ("Albert", {**BODY, **POSITIONS, "embedding_size": 4, "num_hidden_layers": 2}),
    "ELECTRA": ("Electra", {**BODY, **POSITIONS, "embedding_size": 4}),
    "DeBERTa-v2": (
        "DebertaV2",
        {
            **BODY,
            **POSITIONS,
            "relative_attention": True,
            "position_buckets": 4,
            "pos_att_type": ["p2c", "c2p"],
            "pooler_hidden_size": 8,
        },
    ),
    "ConvBERT": ("ConvBert", {**BODY, **POSITIONS, "embedding_size": 8, "conv_kernel_size": 3, "head_ratio": 2}),
    "MobileBERT": (
        "MobileBert",
        {
            **BODY,
            **POSITIONS,
            "embedding_size": 4,
            "intra_bottleneck_size": 8,
            "true_hidden_size": 8,
            "num_feedforward_networks": 1,
        },
    ),
    "FNet": ("FNet", {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 12, **POSITIONS}),
    "XLNet": ("XLNet", {"d_model": 8, "n_layer": 1, "n_head": 2, "d_inner": 12}),
    "Funnel": (
        "Funnel",
        {"block_sizes": [1, 1], "d_model": 8, "n_head": 2, "d_head": 4, "d_inner": 12, "num_decoder_layers": 1},
    ),
    "MPNet": ("MPNet", {**BODY, **POSITIONS, "pad_token_id": 1}),
    "RoFormer": ("RoFormer", {**BODY, **POSITIONS, "embedding_size": 8}),
    "Nystromformer": ("Nystromformer", {**BODY, **POSITIONS, "num_landmarks": 3, "segment_means_seq_len": 6}),
    "ModernBERT": ("ModernBert", {**BODY, **POSITIONS, "local_attention": 4, "cls_token_id": 1, "sep_token_id": 2}),
}
DECODERS: dict[str, tuple[str, Options]] = {
    "GPT-2": ("GPT2", GPT),
    "GPT-Neo": (
        "GPTNeo",
        {
            "hidden_size": 8,
            "num_layers": 1,
            "num_heads": 2,
            **POSITIONS,
            "attention_types": [[["local"], 1]],
            "window_size": 3,
        },
    ),
    "GPT-J": ("GPTJ", {**GPT, "rotary_dim": 2}),
    "GPT-NeoX": ("GPTNeoX", {**BODY, **POSITIONS}),
    "OPT": (
        "OPT",
        {
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "ffn_dim": 12,
            "word_embed_proj_dim": 8,
            **POSITIONS,
        },
    ),
    "Bloom": ("Bloom", {"hidden_size": 8, "n_layer": 1, "n_head": 2}),
    "Llama": ("Llama", DECODER),
    "Mistral": ("Mistral", {**DECODER, "sliding_window": 4}),
    "Qwen2": ("Qwen2", DECODER),
    "Qwen3": ("Qwen3", DECODER),
    "Gemma": ("Gemma", DECODER),
    "Gemma 2": ("Gemma2", {**DECODER, "query_pre_attn_scalar": 4, "sliding_window": 4}),
    "Phi": ("Phi", {**BODY, **POSITIONS}),
    "Falcon": ("Falcon", {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}),
    "MPT": ("Mpt", {"d_model": 8, "n_layers": 1, "n_heads": 2, "max_seq_len": 16}),
    "StableLM": ("StableLm", {**BODY, **POSITIONS, "num_key_value_heads": 2}),
    "OLMo": ("Olmo", {**BODY, **POSITIONS}),
    "StarCoder 2": ("Starcoder2", {**BODY, **POSITIONS, "num_key_value_heads": 1}),
    "CTRL": ("CTRL", {"n_embd": 8, "n_layer": 1, "n_head": 2, "dff": 12, "n_positions": 16}),
    "BioGPT": ("BioGpt", {**BODY, **POSITIONS}),
}
EXPERTS = {**BODY, **POSITIONS, "num_key_value_heads": 1, "num_local_experts": 2, "num_experts_per_tok": 2}
UPCASTS = {
    "Llama",
    "Mistral",
    "Qwen2",
    "Qwen3",
    "Gemma",
    "Gemma 2",
    "Falcon",
    "OLMo",
    "Mixtral",
    "MPT",
    "GPT-Neo",
    "GPT-J",
    "StarCoder 2",
    "Phi",
    "StableLM",
    "GPT-NeoX",
}
COUPLED = {"Nystromformer"}  # its inverse starts from the largest entry of the whole batch


def classifier(kind: str, options: Options, attention: str | None = None) -> nn.Module:
    """A classifier of three classes from the configuration of this kind."""
    config = getattr(transformers, f"{kind}Config")(**{**SHARED, **options})
    if attention is not None:
        config._attn_implementation = config._experts_implementation = attention
    found: nn.Module = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    return found


class Pooled(nn.Module):
    """A body, the mean of its last hidden states, a linear layer."""

    def __init__(self, body: nn.Module, width: int, **fixed: Any) -> None:
        super().__init__()
        self.body, self.head, self.fixed = body, nn.Linear(width, 3), fixed

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x, **self.fixed).last_hidden_state.mean(1))
        return out


class FromOneToken(nn.Module):
    """Encoder and decoder, the second of which starts from one token for every example."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        start = x.new_ones(len(x), 2)
        out: Tensor = self.head(self.body(input_ids=x, decoder_input_ids=start).last_hidden_state[:, -1])
        return out


def t5() -> nn.Module:
    config = transformers.T5Config(
        vocab_size=VOCABULARY,
        d_model=8,
        d_kv=4,
        d_ff=12,
        num_layers=1,
        num_heads=2,
        pad_token_id=0,
        decoder_start_token_id=0,
        relative_attention_num_buckets=4,
        feed_forward_proj="gated-gelu",
    )
    return FromOneToken(transformers.T5Model(config), 8)


def bart() -> nn.Module:
    config = transformers.BartConfig(
        vocab_size=VOCABULARY,
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=12,
        decoder_ffn_dim=12,
        max_position_embeddings=16,
        pad_token_id=0,
    )
    return FromOneToken(transformers.BartModel(config), 8)


def mamba() -> nn.Module:
    config = transformers.MambaConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        state_size=3,
        num_hidden_layers=1,
        conv_kernel=3,
        time_step_rank=2,
        expand=1,
        use_mambapy=False,
    )
    return Pooled(transformers.MambaModel(config), 8)


def clip_text() -> nn.Module:
    config = transformers.CLIPTextConfig(**{**SHARED, **BODY, **POSITIONS})
    return Pooled(transformers.CLIPTextModel(config), 8)


def bodies() -> dict[str, Callable[[], nn.Module]]:
    return {"T5": t5, "BART": bart, "Mamba": mamba, "CLIP, text": clip_text}


def encoders() -> Iterator[Foreign]:
    for name, (kind, options) in ENCODERS.items():
        yield Foreign(
            name,
            "text encoder",
            partial(classifier, kind, options),
            padded_tokens(VOCABULARY, LENGTH),
            BY_BATCH if name in COUPLED else {},
        )


def decoders() -> Iterator[Foreign]:
    for name, (kind, options) in DECODERS.items():
        yield Foreign(
            name,
            "text decoder",
            partial(classifier, kind, options),
            padded_tokens(VOCABULARY, LENGTH),
            tolerance=exact(name),
        )
    yield Foreign(
        "Llama, eager",
        "text decoder",
        lambda: classifier("Llama", DECODER, "eager"),
        tokens(VOCABULARY, LENGTH, first=3),
        tolerance=LOSES_DIGITS,
    )
    yield Foreign(
        "BERT, eager",
        "text encoder",
        lambda: classifier("Bert", {**BODY, **POSITIONS}, "eager"),
        tokens(VOCABULARY, LENGTH, first=3),
    )
    yield Foreign(
        "Mixtral",
        "text decoder",
        lambda: classifier("Mixtral", EXPERTS, "eager"),
        tokens(VOCABULARY, LENGTH, first=3),
        tolerance=LOSES_DIGITS,
    )
    for kind, options in {"Llama": DECODER, "Gemma": DECODER, "Mixtral": EXPERTS}.items():
        yield Foreign(
            f"{kind}, float32",
            "text decoder",
            partial(classifier, kind, options),
            padded_tokens(VOCABULARY, LENGTH),
            single=True,
            twin=partial(classifier, kind, options, "eager") if options is EXPERTS else None,
        )
    yield Foreign(
        "BERT, float32",
        "text encoder",
        lambda: classifier("Bert", {**BODY, **POSITIONS}),
        padded_tokens(VOCABULARY, LENGTH),
        single=True,
    )


def exact(name: str) -> float:
    return LOSES_DIGITS if name in UPCASTS else 1e-5


def text() -> list[Foreign]:
    others = [
        Foreign(name, "text", make, tokens(VOCABULARY, LENGTH, first=3), tolerance=LOSES_DIGITS)
        for name, make in bodies().items()
    ]
    unused = Foreign(
        "BERT with its pooler",
        "refused",
        lambda: Pooled(transformers.BertModel(transformers.BertConfig(**{**SHARED, **BODY, **POSITIONS})), 8),
        tokens(VOCABULARY, LENGTH),
        {"every": "no output depends on .*pooler", "barrier": None, "flatness": None},
        held=False,
    )
    found = [*encoders(), *decoders(), *others, unused]
    return [replace(network, library="transformers") for network in found]
