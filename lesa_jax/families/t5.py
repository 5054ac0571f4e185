"""T5, whose attention knows positions by a table of distances: the first ones, and those with a gate (1.1, Flan-T5)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.families.entries import MOST_LAYERS, flag, integer, integer_or_none, number, wrong
from lesa_jax.families.family import Family
from lesa_jax.families.model import ModelConfig, Names, Norm
from lesa_jax.families.reading import ACTIVATIONS, describe

ENCODER_NAMES = Names(
    embedding="shared",
    final_norm="encoder.final_layer_norm",
    head="lm_head",
    layers="encoder.block",
    attention_norm="layer.0.layer_norm",
    query="layer.0.SelfAttention.q",
    key="layer.0.SelfAttention.k",
    value="layer.0.SelfAttention.v",
    attention_output="layer.0.SelfAttention.o",
    distances="layer.0.SelfAttention.relative_attention_bias",
    feed_forward_norm="layer.1.layer_norm",
    up="layer.1.DenseReluDense.wi",
    down="layer.1.DenseReluDense.wo",
)
DECODER_NAMES = replace(
    ENCODER_NAMES,
    final_norm="decoder.final_layer_norm",
    layers="decoder.block",
    cross_norm="layer.1.layer_norm",
    cross_query="layer.1.EncDecAttention.q",
    cross_key="layer.1.EncDecAttention.k",
    cross_value="layer.1.EncDecAttention.v",
    cross_output="layer.1.EncDecAttention.o",
    feed_forward_norm="layer.2.layer_norm",
    up="layer.2.DenseReluDense.wi",
    down="layer.2.DenseReluDense.wo",
)


def t5(config: Mapping[str, Any]) -> ModelConfig:
    """The first ones scale what the head reads and have no head of their own; from 1.1 on it is the other way round."""
    layers = integer(config, "num_layers", 6, most=MOST_LAYERS)
    activation, gated = read_feed_forward(config)
    heads, hidden = integer(config, "num_heads", 8), integer(config, "d_model", 512)
    tied = flag(config, "tie_word_embeddings", True)

    def stack(names: Names, count: int, **said: Any) -> ModelConfig:
        return describe(
            config,
            with_gate(names) if gated else names,
            num_layers=count,
            num_heads=heads,
            num_kv_heads=heads,
            head_dim=integer(config, "d_kv", 64),
            hidden_size=hidden,
            intermediate_size=integer(config, "d_ff", 2048),
            max_position_embeddings=integer(config, "n_positions", 512),
            norm=Norm(centred=False, eps=number(config, "layer_norm_epsilon", 1e-6)),
            tied=tied,
            ropes=(),
            activation=activation,
            attention_scale=1.0,
            fan_in=True,
            distance_buckets=read_buckets(config),
            longest_distance=integer(config, "relative_attention_max_distance", 128),
            **said,
        )

    return stack(
        DECODER_NAMES,
        integer_or_none(config, "num_decoder_layers", layers) or layers,
        encoder=stack(ENCODER_NAMES, layers),
        embedding_copies=("encoder.embed_tokens", "decoder.embed_tokens"),
        start_token=read_start_token(config),
        logit_scale=hidden**-0.5 if flag(config, "scale_decoder_outputs", tied) else 1.0,
    )


def with_gate(names: Names) -> Names:
    assert names.up is not None
    return replace(names, gate=f"{names.up}_0", up=f"{names.up}_1")


def read_feed_forward(config: Mapping[str, Any]) -> tuple[str, bool]:
    """What `models.layers.ACTIVATIONS` calls the activation, and whether there is a gate.

    Raises:
      InputError: an activation that is not implemented.
    """
    said = config.get("feed_forward_proj", "relu")
    if not isinstance(said, str):
        raise wrong("feed_forward_proj", said, "relu or gated-gelu")
    gated, name = said.startswith("gated-"), said.removeprefix("gated-")
    if name not in ACTIVATIONS:
        raise InputError(
            f"config.json: feed_forward_proj {said!r} is not implemented; supported: {', '.join(ACTIVATIONS)}, each "
            "also behind gated-"
        )
    # T5 1.1 is older than its config's words: its "gelu" is the approximation.
    return ("gelu_tanh" if said == "gated-gelu" else ACTIVATIONS[name]), gated


def read_buckets(config: Mapping[str, Any]) -> int:
    buckets = integer(config, "relative_attention_num_buckets", 32, least=4)
    if buckets % 4:
        raise wrong("relative_attention_num_buckets", buckets, "a multiple of 4: half for each direction, half exact")
    return buckets


def read_start_token(config: Mapping[str, Any]) -> int:
    """What a decoder reads before its first token.

    Raises:
      InputError: nothing says so, or it is none of the vocabulary.
    """
    token = config.get("decoder_start_token_id")
    if token is None:
        raise InputError(
            "config.json: decoder_start_token_id is missing, so nobody knows what the decoder begins with; add it "
            "(T5's is its pad_token_id, BART's its eos_token_id)"
        )
    return integer(config, "decoder_start_token_id", least=0, most=integer(config, "vocab_size") - 1)


def mt5(config: Mapping[str, Any]) -> ModelConfig:
    """T5 1.1 with other defaults, whatever config.json says of ties and scales."""
    absent = {"num_layers": 8, "num_heads": 6, "d_ff": 1024, "feed_forward_proj": "gated-gelu", "vocab_size": 250_112}
    return replace(t5({**absent, "decoder_start_token_id": 0, **config}), logit_scale=1.0)


T5 = Family("t5", "T5, T5 1.1, Flan-T5", t5, encoder=True)
MT5 = Family("mt5", "mT5", mt5, encoder=True)
