"""What is written down about a family of models: one value of `model_type` in config.json."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lesa_jax.families.model import ModelConfig


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
      model_type: that value.
      models: that are published with it, for the table in the README.
      read: makes a description of config.json, or raises InputError for what no forward pass here computes exactly;
        None: there is no forward pass, so it can be grown but neither measured nor trained.
      transposed: parts of names of linear layers that lie as [in, out] (transformers' Conv1D), not as [out, in].
      post_norm: whether norms stand in the residual stream itself, so that no layer can be silenced.
      encoder: whether its models are encoder-decoders.
    """

    model_type: str
    models: str = ""
    read: Callable[[Mapping[str, Any]], ModelConfig] | None = None
    transposed: frozenset[str] = frozenset()
    post_norm: bool = False
    encoder: bool = False
