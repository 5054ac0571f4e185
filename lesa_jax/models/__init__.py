"""The forward pass of decoder-only language models, as pure functions over checkpoint-named trees."""

from lesa_jax.models.config import ModelConfig
from lesa_jax.models.decoder import (
    Context,
    block,
    embed,
    forward,
    head_weight,
    logits,
    make_context,
    rms_norm,
    run_layers,
)
from lesa_jax.models.load import checked_params, load_model

__all__ = [
    "Context",
    "ModelConfig",
    "block",
    "checked_params",
    "embed",
    "forward",
    "head_weight",
    "load_model",
    "logits",
    "make_context",
    "rms_norm",
    "run_layers",
]
