"""A decoder described: all that a forward pass needs to know of a model beside its weights.

There is one forward pass (`lesa_jax.models.decoder`); families differ by the values here. Everything is hashable, so
that a description can be a static argument of `jax.jit`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Names:
    """What a checkpoint calls the parts that a forward pass needs, by what they do; None: the model has no such part.

    A part is a tensor's name without `.weight` or `.bias`.

    Attributes:
      embedding, final_norm, head: outside the layers. A tied model has no head of its own.
      positions: a learned table of positions, outside the layers.
      layers: what stands before a layer's number.
      attention_norm, feed_forward_norm: of what attention and the feed-forward network read.
      attention_output_norm, feed_forward_output_norm: of what they add to the residual stream.
      query, key, value: projections of attention; or all of them in one, `qkv`.
      query_norm, key_norm: of queries and keys, before they are rotated.
      attention_output, down: the projections into the residual stream.
      gate, up: the first projections of a gated feed-forward network; or both in one, `gate_up`. Without a gate there
        is `up` alone.
    """

    embedding: str
    final_norm: str
    head: str
    layers: str
    attention_output: str
    down: str
    positions: str | None = None
    attention_norm: str | None = None
    attention_output_norm: str | None = None
    feed_forward_norm: str | None = None
    feed_forward_output_norm: str | None = None
    query: str | None = None
    key: str | None = None
    value: str | None = None
    qkv: str | None = None
    query_norm: str | None = None
    key_norm: str | None = None
    gate: str | None = None
    up: str | None = None
    gate_up: str | None = None

    def bare(self) -> "Names":
        """The names that a checkpoint has of a model without its head: `h.0`, not `transformer.h.0` (GPT-2's own)."""
        whole = f"{self.layers.split('.')[0]}."
        return replace(
            self,
            embedding=self.embedding.removeprefix(whole),
            final_norm=self.final_norm.removeprefix(whole),
            layers=self.layers.removeprefix(whole),
            positions=self.positions and self.positions.removeprefix(whole),
        )


@dataclass(frozen=True)
class Norm:
    """How a model normalises.

    Attributes:
      centred: whether the mean is taken off first: LayerNorm; else RMSNorm.
      eps: added to the variance.
      weight, bias: whether there are any.
      shifted: whether a weight w stands for 1 + w (Gemma).
    """

    centred: bool
    eps: float
    weight: bool = True
    bias: bool = False
    shifted: bool = False


@dataclass(frozen=True)
class Linear:
    """Positions divided by `factor` (`rope_type: linear`)."""

    factor: float


@dataclass(frozen=True)
class Dynamic:
    """Beyond `positions` tokens the base grows with the sequence (`rope_type: dynamic`)."""

    factor: float
    positions: int


@dataclass(frozen=True)
class Llama3:
    """Llama 3.1's frequency-dependent stretch of the wavelengths (`rope_type: llama3`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class Yarn:
    """YaRN (arXiv 2309.00071): wavelengths that turn often within `positions` stay, long ones are stretched.

    Attributes:
      factor: of the stretch.
      fast, slow: turns within `positions` above which nothing, and below which everything is stretched.
      positions: of the model before.
      magnitude: factor on cosine and sine.
      truncate: whether the bounds between which it blends are whole numbers.
    """

    factor: float
    fast: float
    slow: float
    positions: int
    magnitude: float
    truncate: bool


@dataclass(frozen=True)
class LongRope:
    """LongRoPE (arXiv 2402.13753): a stretch of its own for each wavelength, others for long sequences.

    Attributes:
      short, long: the stretches up to `positions` tokens, and beyond.
      positions: of the model before.
      magnitude: factor on cosine and sine.
    """

    short: tuple[float, ...]
    long: tuple[float, ...]
    positions: int
    magnitude: float


@dataclass(frozen=True)
class Rope:
    """A rotary position embedding.

    Attributes:
      theta: base of the wavelengths.
      width: how many of a head's first numbers are rotated.
      scaling: of the wavelengths for sequences longer than the model was made for.
    """

    theta: float
    width: int
    scaling: Linear | Dynamic | Llama3 | Yarn | LongRope | None = None


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer.

    Attributes:
      model_type: of `config.json`.
      names: of its parts.
      vocab_size, hidden_size, intermediate_size, num_layers, num_heads, num_kv_heads, head_dim: its sizes.
      max_position_embeddings: the longest sequence that it is meant for.
      norm: all of its norms.
      tied: whether the head is the embedding.
      windows: for each layer how many tokens it may attend to, the token itself included; None: every earlier one.
      ropes: the rotations that layers use; an entry of None rotates nothing. Empty: none does.
      rotations: for each layer which of `ropes` it uses.
      interleaved: whether the rotated pairs are neighbours, not the halves of what is rotated.
      qkv_bias, output_bias, up_bias, down_bias, head_bias: of the projections of queries, keys and values, of
        attention's output, of gate and up, of down, and of the head.
      activation: of the feed-forward network.
      parallel: whether attention and the feed-forward network read the same stream and are added together.
      qk_norm: what a norm of queries and keys is over: each "head" with the weights of all heads, each with its own
        ("heads"), or "all" heads together.
      transposed: whether the linear layers inside the layers lie as [in, out] (transformers' Conv1D).
      qkv_groups: of a fused projection: how many groups of heads its rows consist of, each its queries, then its keys,
        then its values.
      attention_scale: factor on the scores; None: one over the root of `head_dim`.
      attention_cap, logit_cap: scores and logits become cap tanh(x / cap).
      qkv_clip: queries, keys and values are cut off at it.
      embedding_scale, residual_scale, logit_scale: factors on embeddings, on what each half of a layer adds, and on
        logits.
      position_offset: row of the table of positions for the first token.
    """

    model_type: str
    names: Names
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    norm: Norm
    tied: bool
    windows: tuple[int | None, ...]
    ropes: tuple[Rope | None, ...]
    rotations: tuple[int, ...]
    interleaved: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    up_bias: bool = False
    down_bias: bool = False
    head_bias: bool = False
    activation: str = "silu"
    parallel: bool = False
    qk_norm: Literal["head", "heads", "all"] | None = None
    transposed: bool = False
    qkv_groups: int = 1
    attention_scale: float | None = None
    attention_cap: float | None = None
    logit_cap: float | None = None
    qkv_clip: float | None = None
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    position_offset: int = 0

    def of_layers(self, layers: Sequence[int]) -> "ModelConfig":
        """The same model made of these of its layers, in this order."""
        return replace(
            self,
            num_layers=len(layers),
            windows=tuple(self.windows[layer] for layer in layers),
            rotations=tuple(self.rotations[layer] for layer in layers),
        )
