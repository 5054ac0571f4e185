"""The stacks of layers that a checkpoint has: one, or an encoder's and a decoder's."""

from collections.abc import Mapping, Sequence
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.names import Stack
from lesa_jax.families.fields import check_numbers, count_layers, find_layers, has_encoder, numbers_by_prefix
from lesa_jax.families.model import ModelConfig
from lesa_jax.families.table import FAMILIES, description, find_family


def count_stacks(config: Mapping[str, Any]) -> tuple[int, ...]:
    """How many layers config.json declares: of the model, or of its encoder and its decoder.

    Raises:
      InputError: none declared, or an encoder-decoder that is not known.
    """
    model = encoder_decoder(config)
    return (count_layers(config),) if model is None else tuple(stack.num_layers for stack in model.stacks)


def find_stacks(config: Mapping[str, Any], stacks: Sequence[Stack]) -> tuple[str, ...]:
    """What the names of layers begin with, such as `model.layers.`: the encoder's, if there is one, and the decoder's.

    Raises:
      InputError: the tensors and the config disagree on the number of layers, layers are missing in between, or an
        encoder-decoder is not known.
    """
    model = encoder_decoder(config)
    if model is None:
        return (find_layers(config, tuple(stacks)),)
    found, prefixes = numbers_by_prefix(stacks), []
    bare = model.names.bare().layers + "."
    for stack in model.stacks:
        names = stack.names.bare() if bare in found else stack.names
        prefix = f"{names.layers}."
        if prefix not in found:
            raise InputError(f"the checkpoint has no tensors {prefix}*, a {stack.model_type}'s; take the complete one")
        check_numbers(config, prefix, found[prefix], stack.num_layers)
        prefixes.append(prefix)
    return tuple(prefixes)


def encoder_decoder(config: Mapping[str, Any]) -> ModelConfig | None:
    """Its description; None of a decoder alone.

    Raises:
      InputError: it is not known, or config.json is damaged.
    """
    model = description(config)
    if model is not None:
        return None if model.encoder is None else model
    if not has_encoder(config):
        return None
    read = find_family(config).read
    if read is None:
        known = [name for name in FAMILIES if FAMILIES[name].encoder]
        raise InputError(
            f"config.json: {config.get('model_type')} is an encoder-decoder that is not known here; those of "
            f"model_type {', '.join(known[:-1])} and {known[-1]} can be grown"
        )
    return read(config)
