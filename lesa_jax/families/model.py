"""A decoder described: all that a forward pass needs to know of a model beside its weights.

There is one forward pass (`lesa_jax.models.decoder`); families differ by the values here. Everything is hashable, so
that a description can be a static argument of `jax.jit`. A model that reads one text and writes another is a decoder
with an encoder, each described so (`lesa_jax.models.encoder_decoder`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple


@dataclass(frozen=True)
class Names:
    """What a checkpoint calls the parts that a forward pass needs, by what they do; None: the model has no such part.

    A part is a tensor's name without `.weight` or `.bias`.

    Attributes:
      embedding, final_norm, head: outside the layers. A tied model has no head of its own.
      embedding_norm: of what embeddings and positions add up to.
      logit_bias: a tensor [1, vocab] that is added to the logits.
      positions: a learned table of positions, outside the layers.
      distances: a table [buckets, heads] of what the distance of two tokens adds to their scores. It lies in the first
        layer, and all layers use it.
      layers: what stands before a layer's number.
      attention_norm, feed_forward_norm: of what attention and the feed-forward network read.
      attention_output_norm, feed_forward_output_norm: of what they add to the residual stream.
      query, key, value: projections of attention; or all of them in one, `qkv`.
      query_norm, key_norm: of queries and keys, before they are rotated.
      attention_output, down: the projections into the residual stream; there is no `down` where experts are all that
        there is beside attention (`ExpertNames`).
      cross_norm, cross_query, cross_key, cross_value, cross_output: the same of attention to what an encoder has made.
      gate, up: the first projections of a gated feed-forward network; or both in one, `gate_up`. Without a gate there
        is `up` alone.
    """

    embedding: str
    final_norm: str | None
    head: str
    layers: str
    attention_output: str
    down: str | None = None
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
    embedding_norm: str | None = None
    logit_bias: str | None = None
    distances: str | None = None
    cross_norm: str | None = None
    cross_query: str | None = None
    cross_key: str | None = None
    cross_value: str | None = None
    cross_output: str | None = None

    def bare(self) -> "Names":
        """The names that a checkpoint has of a model without its head: `h.0`, not `transformer.h.0` (GPT-2's own)."""
        whole = f"{self.layers.split('.')[0]}."
        return replace(
            self,
            embedding=self.embedding.removeprefix(whole),
            final_norm=self.final_norm and self.final_norm.removeprefix(whole),
            layers=self.layers.removeprefix(whole),
            positions=self.positions and self.positions.removeprefix(whole),
            embedding_norm=self.embedding_norm and self.embedding_norm.removeprefix(whole),
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
class Latent:
    """Latent attention (DeepSeek-V2, arXiv 2405.04434): heads' keys and values come out of one narrow vector a token.

    Attributes:
      query_down, query_norm: make the narrow vector that queries come out of; None: `query` reads the stream itself.
      query: makes the queries.
      key_value_down: makes the narrow vector of keys and values, and behind it the rotated part that all keys share.
      key_value_norm: of the former.
      key_value: makes of it each head's plain part of the key, and the value.
      query_rank, key_value_rank: widths of the narrow vectors; None: of no query's.
      plain, rotated, value: widths in a head: of queries and keys, the latter part of which is rotated, and of values.
    """

    query: str
    key_value_down: str
    key_value_norm: str
    key_value: str
    key_value_rank: int
    plain: int
    rotated: int
    value: int
    query_down: str | None = None
    query_norm: str | None = None
    query_rank: int | None = None


@dataclass(frozen=True)
class ExpertNames:
    """What a checkpoint calls the parts of a mixture of experts inside its layer, without `.weight`; None: not there.

    Experts that are tensors of their own have a `*` where their number stands; without one, all experts of a layer are
    one tensor, [experts, out, in].

    Attributes:
      router: makes a logit for each expert.
      down: the experts' projections into the residual stream.
      gate, up: their first projections; or both in one, `gate_up`.
      selection_bias: the whole name of what is added to scores when experts are chosen, and at no other time.
      shared_gate, shared_up, shared_down: of the expert that every token goes through.
      shared_router: makes the logit of that expert's own weight.
    """

    router: str
    down: str
    gate: str | None = None
    up: str | None = None
    gate_up: str | None = None
    selection_bias: str | None = None
    shared_gate: str | None = None
    shared_up: str | None = None
    shared_down: str | None = None
    shared_router: str | None = None


@dataclass(frozen=True)
class Experts:
    """A mixture of experts: the feed-forward network of some layers, or of all. No token is dropped.

    A softmax over the chosen logits alone (Granite, gpt-oss) is one over all, `normalised`.

    Attributes:
      names: of its parts.
      number, per_token: how many experts there are, and how many a token goes through.
      width: of an expert.
      shared_width: of the expert that every token goes through; 0: there is none.
      scoring: what makes scores of the router's logits.
      normalised: whether the scores of the chosen experts are brought to a sum of 1.
      scale: factor on them.
      groups, kept_groups: experts lie in so many groups, of which a token may choose from so many.
      group_score: what a group is chosen by: its best expert's score, or the sum of its two best.
      balance: weight of the loss for even use in training, by config.json (router_aux_loss_coef).
    """

    names: ExpertNames
    number: int
    per_token: int
    width: int
    shared_width: int = 0
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    normalised: bool = True
    scale: float = 1.0
    groups: int = 1
    kept_groups: int = 1
    group_score: Literal["best", "two"] = "best"
    balance: float = 0.0

    def all_chosen(self) -> "Experts":
        """The same, with every expert chosen by every token."""
        return replace(self, per_token=self.number, groups=1, kept_groups=1)


class Sizes(NamedTuple):
    """What layers of one model may differ in: heads of queries, heads of keys and values, feed-forward width."""

    num_heads: int
    num_kv_heads: int
    intermediate_size: int


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer.

    Attributes:
      model_type: of `config.json`.
      names: of its parts.
      vocab_size, hidden_size, intermediate_size, num_layers, num_heads, num_kv_heads, head_dim: its sizes; of those
        that differ from layer to layer the largest.
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
      latent: how queries, keys and values are made where not by plain projections; `head_dim` is that of queries and
        keys.
      experts: what stands in the place of the feed-forward network, in the layers that are `sparse`.
      sparse: for each layer whether it is one of those; empty: none is.
      sizes: of each layer; empty: all are alike, so that there is one description of such a model (`with_sizes`).
      norm_scales: for each layer a factor on what its norms before attention and feed-forward network give; empty: 1.
      encoder: of a model that writes a text of another one: what reads that one; the rest describes its decoder.
      embedding_copies: other names under which some checkpoints hold the embedding once more.
      start_token: what stands before the first token that such a decoder writes.
      post_norm: whether norms stand in the residual stream, behind each addition to it.
      fan_in: whether the numbers of fresh matrices have a deviation of one over the root of their inputs.
      distance_buckets, longest_distance: rows of the table of distances, and from which distance on all share one.
      lora_rank: of the adapters that linear layers have in training (`training.lora`); 0: there are none.
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
    latent: Latent | None = None
    experts: Experts | None = None
    sparse: tuple[bool, ...] = ()
    sizes: tuple[Sizes, ...] = ()
    norm_scales: tuple[float, ...] = ()
    encoder: "ModelConfig | None" = None
    embedding_copies: tuple[str, ...] = ()
    start_token: int = 0
    post_norm: bool = False
    fan_in: bool = False
    distance_buckets: int = 0
    longest_distance: int = 0
    lora_rank: int = 0

    @property
    def stacks(self) -> "tuple[ModelConfig, ...]":
        """Each stack of layers by itself: the encoder's, if there is one, and the decoder's."""
        return (self,) if self.encoder is None else (self.encoder, self)

    def is_sparse(self, layer: int) -> bool:
        """Whether a layer's feed-forward network is a mixture of experts."""
        return bool(self.sparse) and self.sparse[layer]

    def sizes_of(self, layer: int) -> Sizes:
        """A layer's own."""
        return self.sizes[layer] if self.sizes else Sizes(self.num_heads, self.num_kv_heads, self.intermediate_size)

    def with_sizes(self, sizes: Sequence[Sizes]) -> "ModelConfig":
        """The same model with layers of these sizes; without any it keeps its own."""
        largest = Sizes(*map(max, zip(*sizes, strict=True))) if sizes else self.sizes_of(0)
        return replace(self, **largest._asdict(), sizes=tuple(sizes) if len(set(sizes)) > 1 else ())

    def like(self, layer: int) -> "ModelConfig":
        """The same model with all of its layers of this one's sizes: what a program of such layers is compiled for."""
        return self.with_sizes([self.sizes[layer]]) if self.sizes else self

    def of_layers(self, layers: Sequence[int]) -> "ModelConfig":
        """The same model made of these of its layers, in this order."""
        own = {name: getattr(self, name) for name in ("windows", "rotations", "sparse", "norm_scales")}
        kept = {name: tuple(values[layer] for layer in layers) for name, values in own.items() if values}
        chosen = replace(self, num_layers=len(layers), sizes=(), **kept)
        return chosen.with_sizes([self.sizes[layer] for layer in layers]) if self.sizes else chosen
