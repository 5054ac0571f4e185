"""Layers that run more than once in a row, though the model was never trained to (arXiv 2512.08819, 2602.16490).

A model that loops is one of its own layers in another order, so nothing of it is computed in a new way.
"""

import re
from collections.abc import Sequence

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.runs import reordered
from lesa_jax.planning.placement import LARGEST

LOOP = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?x([0-9]{1,6})")


def loop_order(loop: str, config: ModelConfig) -> tuple[int, ...]:
    """The layers in the order in which they run.

    Args:
      loop: `8-11x2`: layers 8 to 11 run, and run once more; `8x2` is layer 8 alone. Times 1 changes nothing.
      config: of the model.

    Raises:
      InputError: not of this form, layers that there are not, an encoder-decoder, or too many layers.
    """
    if config.encoder is not None:
        raise InputError(f"--loop {loop}: the model has an encoder and a decoder; layers are looped in decoders alone")
    if (found := LOOP.fullmatch(loop)) is None:
        raise InputError(f"--loop {loop}: name layers and how often they run in all, as in --loop 8-11x2")
    first, last, times = int(found[1]), int(found[2] or found[1]), int(found[3])
    if first > last:
        raise InputError(f"--loop {loop}: the lower layer comes first, as in --loop {last}-{first}x{times}")
    if last >= config.num_layers:
        raise InputError(f"--loop {loop}: no layer {last}; the model has layers 0 to {config.num_layers - 1}")
    if times < 1:
        raise InputError(f"--loop {loop}: layers run at least once (x1: the model as it is)")
    if config.num_layers + (times - 1) * (last + 1 - first) > LARGEST:
        raise InputError(f"--loop {loop}: more than {LARGEST:,} layers would run; loop fewer times")
    return looped(config.num_layers, range(first, last + 1), times)


def looped(count: int, block: range, times: int) -> tuple[int, ...]:
    """The numbers of `count` layers, those of the block `times` times in a row."""
    return (*range(block.start), *[*block] * times, *range(block.stop, count))


def in_order(params: Tree, config: ModelConfig, order: Sequence[int]) -> tuple[Tree, ModelConfig]:
    """A model of the layers in this order, each with the window, rotation and experts that it has in its own place.

    Args:
      params, config: of a decoder; its tree stays as it is, the layers of the other one are copies.
    """
    if [*order] == [*range(config.num_layers)]:
        return params, config
    return reordered(params, config, order), config.of_layers(order)
