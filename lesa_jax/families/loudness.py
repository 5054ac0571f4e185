"""How loud a layer is: the tensors that decide how much each of its halves adds to the residual stream."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lesa_jax.families.model import ModelConfig
from lesa_jax.families.roles import writes_residual


@dataclass(frozen=True)
class Loudness:
    """What a tensor that decides so belongs to.

    Attributes:
      writer: the projection into the residual stream, as the tensor's name has it behind the layer's number.
      shift: what is added to the tensor's numbers w where they are read: a norm's may stand for 1 + w (Gemma).
    """

    writer: str
    shift: float = 0.0

    def scaled(self, tensor: Any, factor: Any) -> Any:
        """The tensor of a half that adds `factor` times as much; arrays of numpy or JAX."""
        return factor * (tensor + self.shift) - self.shift if self.shift else factor * tensor


def loudness_of(name: str, model: ModelConfig | None) -> Loudness | None:
    """What a tensor decides the loudness of; None: of nothing.

    That is the projection into the residual stream, its weight and its bias. Behind a norm (Gemma 2, OLMo 2) how large
    its weights are is lost, so there the norm decides.

    Args:
      name: of the tensor, behind the layer's number; an expert's number may be a `*`.
      model: a description; without one there is no norm of which it would be known.
    """
    module, _, last = name.rpartition(".")
    norms = output_norms(model)
    if module in norms:
        assert model is not None
        return Loudness(norms[module], shift=1.0 if model.norm.shifted and last == "weight" else 0.0)
    if not writes_residual(name) or (model is not None and behind_norm(module, model)):
        return None
    return Loudness(name.removesuffix(".weight").removesuffix(".bias"))


def output_norms(model: ModelConfig | None) -> Mapping[str, str]:
    """Norms of what a half of a layer adds to the residual stream, and what the projection before each is called."""
    if model is None:
        return {}
    names = model.names
    behind = {names.attention_output_norm: names.attention_output, names.feed_forward_output_norm: names.down}
    return {norm: writer for norm, writer in behind.items() if norm is not None}


def behind_norm(module: str, model: ModelConfig) -> bool:
    """Whether a norm stands behind this projection into the residual stream."""
    names = model.names
    norm = names.attention_output_norm if module == names.attention_output else names.feed_forward_output_norm
    return norm is not None
