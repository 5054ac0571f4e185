"""From config.json to the description that the forward pass runs by."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.families.model import ModelConfig
from lesa_jax.families.table import FAMILIES, find_family
from lesa_jax.models.parts import head_tensor


def read_config(config: Mapping[str, Any]) -> ModelConfig:
    """What a `config.json`, as transformers 4 or 5 writes it, says of the model.

    Whatever the forward pass cannot compute exactly is refused here, before any weight is read.

    Raises:
      InputError: a family without a forward pass; a rotation, activation, norm or quantisation that it does not
        implement; a missing or contradictory entry.
    """
    family = find_family(config)
    if family.read is None:
        supported = ", ".join(sorted(name for name, family in FAMILIES.items() if family.read))
        raise InputError(
            f"config.json: model_type {config.get('model_type')!r} has no forward pass here; supported: {supported} "
            "(growing a checkpoint without running it needs none)"
        )
    return family.read(config)


def read_model(checkpoint: Checkpoint, config: Mapping[str, Any] | None = None) -> ModelConfig:
    """What the checkpoint's config.json says, or this one instead, of parts that are called as in the checkpoint.

    Raises:
      InputError: as `read_config`.
    """
    model = read_config(checkpoint.config if config is None else config)
    if model.encoder is not None:
        return as_stored(checkpoint, model, model.encoder)
    bare = model.names.bare()
    return replace(model, names=bare) if f"{bare.embedding}.weight" in checkpoint.entries else model


def as_stored(checkpoint: Checkpoint, model: ModelConfig, encoder: ModelConfig) -> ModelConfig:
    """An encoder-decoder with the parts that the checkpoint has.

    Whether its head is the embedding is told by the tensors, as transformers does: its T5 config says so in any case.
    """
    if f"{model.names.embedding}.weight" not in checkpoint.entries and "." in model.names.embedding:
        encoder = replace(encoder, names=encoder.names.bare())
        model = replace(model, names=model.names.bare())
    names, tied = model.names, head_tensor(model) not in checkpoint.entries
    if names.logit_bias not in checkpoint.entries:
        names = replace(names, logit_bias=None)
    return replace(model, encoder=replace(encoder, tied=tied), tied=tied, names=names)
