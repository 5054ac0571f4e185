"""What is written down about a family of models. The families themselves are in `llama`, `gpt2`, `general`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Names:
    """What a checkpoint calls the parts that a forward pass needs, by what they do.

    A part is a tensor's name without `.weight` or `.bias`. Hashable, so that it can be part of a compiled program.

    Attributes:
      embedding, final_norm, head: outside the layers. A tied model has no head of its own.
      layers: what stands before a layer's number.
      attention_norm, query, key, value, attention_output: inside a layer, the attention and the norm before it.
      feed_forward_norm, gate, up, down: the gated feed-forward network and the norm before it.
    """

    embedding: str
    final_norm: str
    head: str
    layers: str
    attention_norm: str
    query: str
    key: str
    value: str
    attention_output: str
    feed_forward_norm: str
    gate: str
    up: str
    down: str


@dataclass(frozen=True)
class Decoder:
    """How the forward pass runs a family: its parts, and where it departs from Llama when `config.json` is silent.

    Attributes:
      names: of the parts.
      default_kv_heads: what transformers assumes without `num_key_value_heads`; None: as many as query heads.
      qkv_bias: whether queries, keys and values have a bias and nothing else has; None: `attention_bias` and
        `mlp_bias` of the configuration say, the output projection's included.
      windows: which layers see `sliding_window` tokens only: none, all, or those that `layer_types` names.
      default_window: what transformers assumes without `sliding_window`.
    """

    names: Names
    default_kv_heads: int | None = None
    qkv_bias: bool | None = None
    windows: Literal["none", "all_layers", "layer_types"] = "none"
    default_window: int | None = None


@dataclass(frozen=True)
class Family:
    """One value of `model_type` in `config.json`.

    Attributes:
      model_type: that value.
      decoder: how to run it; None: there is no forward pass, so it can be grown but neither measured nor trained.
      transposed: parts of names of linear layers that lie as [in, out] (transformers' Conv1D), not as [out, in].
      post_norm: whether norms stand in the residual stream itself, so that no layer can be silenced.
    """

    model_type: str
    decoder: Decoder | None = None
    transposed: frozenset[str] = frozenset()
    post_norm: bool = False
