"""The forward pass of decoder-only language models, as pure functions over checkpoint-named trees."""

from lesa_jax.models.config import ModelConfig
from lesa_jax.models.decoder import block, embed, forward, head_weight, logits, rms_norm, run_layers
from lesa_jax.models.load import checked_params, load_model

__all__ = [
    "ModelConfig",
    "block",
    "checked_params",
    "embed",
    "forward",
    "head_weight",
    "load_model",
    "logits",
    "rms_norm",
    "run_layers",
]
