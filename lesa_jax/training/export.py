"""A trained model as a Hugging Face checkpoint: trained tensors from the devices, frozen ones from their files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import write_json, write_text
from lesa_jax.base.folders import publish
from lesa_jax.checkpoint.companions import carry, files_to_carry
from lesa_jax.checkpoint.format import DTYPES, SHARD_SIZE, TensorSpec
from lesa_jax.checkpoint.names import Tree
from lesa_jax.checkpoint.reader import Checkpoint, check_unchanged, read_bytes
from lesa_jax.checkpoint.writer import TensorWriter, lay_out, write_index
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.parts import embedding_copies, embedding_tensor
from lesa_jax.training.lora import added_up
from lesa_jax.training.parameters import Leaf


def export(
    output: Path,
    trained: Tree,
    leaves: Sequence[Leaf],
    specs: Mapping[str, TensorSpec],
    source: Checkpoint | None,
    config: ModelConfig,
    documents: Mapping[str, Any],
    carried_from: Path,
) -> None:
    """Writes the model in training as a checkpoint folder. All processes call it; the first one writes.

    Args:
      output: the folder; an earlier one is replaced when the new one is complete.
      trained: the trained tree.
      leaves: of the whole model.
      specs: shape and stored dtype of every tensor of the output, in order.
      source: where frozen tensors are copied from, byte for byte; None when everything is trained.
      config: of the model.
      documents: config.json and other JSON or text files by name.
      carried_from: folder with tokenizer and other small files.
    """
    tensors = trained_tensors(trained, [leaf for leaf in leaves if leaf.trained])
    if config.lora_rank:
        assert source is not None
        tensors = added_up(tensors, source, config)
    if jax.process_index() != 0:
        for _ in tensors:  # every process takes part in gathering
            pass
        return
    layout = lay_out(specs, SHARD_SIZE)
    with publish(output) as folder:
        writer = TensorWriter(folder, layout)
        for name, tensor in tensors:
            # Some checkpoints store the embedding, or a tied head, a second time; it must not stay behind.
            copies = embedding_copies(config) if name == embedding_tensor(config) else ()
            for stored in (name, *copies):
                if stored in specs:
                    writer.write(stored, cast(stored, tensor, specs[stored].dtype))
        for name in list(specs):
            if name in writer.missing:
                assert source is not None, name
                writer.write(name, read_bytes(source, source.entries[name]))
        if source is not None:
            check_unchanged(source)
        writer.close()
        write_index(folder, layout)
        carry(files_to_carry(carried_from), carried_from, folder)
        for name, content in documents.items():
            (write_text if isinstance(content, str) else write_json)(folder / name, content)


def cast(name: str, tensor: np.ndarray, dtype: str) -> np.ndarray:
    """A trained tensor in its stored dtype.

    Raises:
      InputError: it holds numbers that this dtype has not.
    """
    with np.errstate(over="ignore"):  # an overflow is found below
        stored = tensor.astype(DTYPES[dtype])
    if not np.isfinite(stored).all():
        raise InputError(
            f"{name}: the largest trained number is {np.abs(tensor).max():.4g}, which {dtype} does not have; lower "
            "--learning-rate in a new run, or convert the model to float32 before"
        )
    return stored


def trained_tensors(trained: Tree, leaves: Sequence[Leaf]) -> Iterator[tuple[str, np.ndarray]]:
    """Trained tensors under their names, gathered from all devices leaf by leaf."""
    arrays: dict[tuple[str, ...], Any] = dict(flatten_dict(trained))
    for leaf in leaves:
        array = arrays[leaf.path]
        if not array.is_fully_addressable:
            array = multihost_utils.process_allgather(array, tiled=True)
        yield from leaf.rows(np.asarray(array))
