"""What all layers of a model share, what each has of its own, and how many parameters that makes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lesa_jax.base.errors import InputError
from lesa_jax.profiles.rounding import Rounding

QKNorm = Literal["head", "all"]


@dataclass(frozen=True)
class Shape:
    """What all layers share.

    Attributes:
      layers: how many.
      hidden_size: of the residual stream.
      head_dim: width of one attention head; even, for rotary positions.
      kv_ratio: query heads to one key-value head (OpenELM's num_gqa_groups); 1 is multi-head attention.
      vocab_size: rows of the embedding.
      tied: whether the embedding is the head, too.
      ffn_divisor: what every feed-forward width is a multiple of.
      rounding: the public code whose rule makes multiples of widths.
      norm_scaling: whether what layer l reads, counted from 1, is scaled by 1/sqrt(l) (LayerNorm Scaling).
      qk_norm: whether queries and keys are normed head by head (OpenELM) or all heads together (OLMo 2).
    """

    layers: int
    hidden_size: int
    head_dim: int
    kv_ratio: int
    vocab_size: int
    tied: bool = True
    ffn_divisor: int = 256
    rounding: Rounding = "openelm"
    qk_norm: QKNorm = "head"
    norm_scaling: bool = False


@dataclass(frozen=True)
class Sizes:
    """What each layer has of its own, layer by layer: feed-forward width, query heads, key-value heads; [layers]."""

    ffn: tuple[int, ...]
    q_heads: tuple[int, ...]
    kv_heads: tuple[int, ...]


def count_parameters(shape: Shape, sizes: Sizes) -> int:
    """Parameters of the model in OpenELM's layout: all of its tensors, and a tied embedding once.

    A layer has, with d the hidden size: queries, keys and values as one matrix [(q + 2 kv) head_dim, d], their output
    [d, q head_dim], norms of queries and of keys [head_dim] each (over all heads [q head_dim] and [kv head_dim]), gate
    and up as one matrix [2 ffn, d], down [d, ffn], and two norms [d]. Outside of layers: the embedding [vocab, d], a
    head like it where it is not tied, a norm [d]. No biases. Source: apple/corenet, general_gpt.py.
    """
    d, head = shape.hidden_size, shape.head_dim
    heads = sum(sizes.q_heads) + sum(sizes.kv_heads)
    attention = 2 * heads * head * d
    feed_forward = sum(3 * width * d for width in sizes.ffn)
    normed = heads if shape.qk_norm == "all" else 2 * shape.layers
    norms = shape.layers * 2 * d + normed * head + d
    return attention + feed_forward + norms + shape.vocab_size * d * (1 if shape.tied else 2)


def explicit_sizes(shape: Shape, ffn: Sequence[int], q_heads: Sequence[int]) -> Sizes:
    """The sizes that were given layer by layer.

    Raises:
      InputError: a list of another length than the model, heads that the key-value ratio does not divide, or a width
        that the layout cannot say.
    """
    for option, values, what in (("--ffn", ffn, "widths"), ("--heads", q_heads, "numbers of heads")):
        if len(values) != shape.layers:
            raise InputError(
                f"{option}: {len(values)} {what} for {shape.layers} layers; give one for each layer, or change --layers"
            )
    for layer, width in enumerate(ffn):
        if width % shape.ffn_divisor:
            raise InputError(
                f"--ffn: layer {layer} has width {width}, no multiple of --ffn-divisor {shape.ffn_divisor}, to which "
                "readers of the config would round it; change one of them"
            )
    for layer, heads in enumerate(q_heads):
        if heads % shape.kv_ratio:
            raise InputError(
                f"--heads: layer {layer} has {heads} query heads, which --kv-ratio {shape.kv_ratio} does not divide; "
                "change one of them"
            )
    return Sizes(tuple(ffn), tuple(q_heads), tuple(heads // shape.kv_ratio for heads in q_heads))
