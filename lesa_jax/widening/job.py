"""Everything about a widening that can be known, and refused, before a weight is read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from lesa_jax import demo
from lesa_jax.base.errors import InputError
from lesa_jax.base.folders import check_output
from lesa_jax.checkpoint.companions import files_to_carry
from lesa_jax.checkpoint.format import FLOATS, SHARD_SIZE, TensorSpec
from lesa_jax.checkpoint.hub import model_name, resolve_model
from lesa_jax.checkpoint.reader import Checkpoint, open_checkpoint
from lesa_jax.checkpoint.writer import Layout, lay_out
from lesa_jax.families.model import ModelConfig
from lesa_jax.families.roles import is_buffer
from lesa_jax.models.config import read_config, read_model
from lesa_jax.models.parts import embedding_tensor, head_tensor
from lesa_jax.models.shapes import check_tensors, model_tensors
from lesa_jax.planning.record import FILE as GROWTH_FILE
from lesa_jax.widening.settings import WidenSettings, check_settings, read_factor

FILE = "widening.json"
# The families in which the tests hold the logits of the wide model against the original's.
FAMILIES = ("gpt_neox", "llama", "qwen2", "qwen3")


@dataclass(frozen=True)
class WideTensor:
    """A tensor of the wide model.

    Attributes:
      source: the original's tensor that it is made of.
      copies: of each of its dimensions.
      shared: whether copies of inputs share its weights, so that what they sum to stays; else every copy is whole.
    """

    source: str
    copies: tuple[int, ...]
    shared: bool


@dataclass(frozen=True)
class WidenJob:
    """A checkpoint to be made wider, and all that is known of what it becomes.

    Attributes:
      settings: as given.
      factor: how many times as wide.
      checkpoint: the original.
      model, wide: what both are like.
      config, tensors, layout: config.json, tensors by their names, and files of the output.
      companions: files of the original that go along.
    """

    settings: WidenSettings
    factor: int
    checkpoint: Checkpoint
    model: ModelConfig
    wide: ModelConfig
    config: Mapping[str, Any]
    tensors: Mapping[str, WideTensor]
    layout: Layout
    companions: Sequence[Path]

    @property
    def source_name(self) -> str:
        return demo.NAME if self.settings.model is None else model_name(self.settings.model)

    @property
    def parameters(self) -> int:
        """Of the wide model."""
        specs = wide_specs(self.checkpoint, self.tensors).values()
        return sum(prod(spec.shape) for spec in specs if spec.dtype in FLOATS)

    @property
    def sizes(self) -> Mapping[str, tuple[int, int]]:
        """What became larger, before and after."""
        names = ("hidden_size", "intermediate_size", "num_heads", "num_kv_heads")
        return {name: (getattr(self.model, name), getattr(self.wide, name)) for name in names}

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of the output beside that it computes what the original does."""
        found = []
        if self.model.tied:
            found.append("the head was the embedding, and is a tensor of its own now")
        if self.settings.method == "hyperclone" and self.settings.noise_db is None:
            found.append("copies are all alike and learn the same: what is new stays unused until something parts them")
        if rounded := self.rounded:
            found.append(f"parts are rounded in {rounded}, so that logits are the original's but for that")
        if (self.checkpoint.folder / GROWTH_FILE).exists():
            found.append(f"{GROWTH_FILE} does not go along: no layer of the wide model is as it was")
        return tuple(found)

    @property
    def rounded(self) -> str:
        """The dtypes of half precision in which the parts of weights do not sum to them exactly."""
        exact = self.settings.noise_db is None and (self.settings.method == "lemon" or self.factor in (2, 4, 8))
        found = {self.checkpoint.entries[tensor.source].spec.dtype for tensor in self.tensors.values() if tensor.shared}
        return "" if exact else ", ".join(sorted(found & {"BF16", "F16"}))


def prepare_job(settings: WidenSettings) -> WidenJob:
    """Opens the checkpoint and checks every option against it.

    Raises:
      InputError: whatever is wrong, before anything is written.
    """
    check_settings(settings)
    factor = read_factor(settings.width)
    folder = demo.MODEL_DIRECTORY if settings.model is None else resolve_model(settings.model, settings.revision)
    checkpoint = open_checkpoint(folder)
    model_type = checkpoint.config.get("model_type")
    if model_type not in FAMILIES:
        raise InputError(
            f"config.json: {model_type} models cannot be made wider yet; supported: {', '.join(FAMILIES)}; "
            "lesa expand makes them deeper"
        )
    model = read_model(checkpoint)
    check_tensors(checkpoint, model)
    config = widen_config(checkpoint.config, model, factor)
    wide = read_config(config)
    tensors = dict(wide_tensors(model, wide)) | dict(buffers(checkpoint))
    layout = lay_out(wide_specs(checkpoint, tensors), SHARD_SIZE)
    companions = [file for file in files_to_carry(folder) if file.name != FILE]
    nbytes = layout.nbytes + sum(file.stat().st_size for file in companions)
    check_output(settings.output, folder, settings.overwrite, nbytes)
    return WidenJob(settings, factor, checkpoint, model, wide, config, tensors, layout, companions)


def widen_config(config: Mapping[str, Any], model: ModelConfig, factor: int) -> dict[str, Any]:
    """config.json of the wide model.

    A head that was the embedding becomes a tensor of its own: it reads every channel as often as there are copies, so
    its weights are parts of what the embedding's are.
    """
    sizes = {
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_attention_heads": model.num_heads,
    }
    if model.names.key is not None:  # in families that have an entry for it
        sizes["num_key_value_heads"] = model.num_kv_heads
    return {**config, **{key: size * factor for key, size in sizes.items()}, "tie_word_embeddings": False}


def wide_tensors(model: ModelConfig, wide: ModelConfig) -> Iterable[tuple[str, WideTensor]]:
    """The wide model's tensors by their names, told from what both models' tensors are like.

    Rows of fused queries, keys and values lie head by head (GPT-NeoX), so that copies of all of them are more heads.
    """
    tables = model_tensors(replace(model, tied=False)), model_tensors(wide)
    for (name, narrow), (wide_name, tensor) in zip(*(table.items() for table in tables), strict=True):
        tied = model.tied and name == head_tensor(model)
        copies = tuple(after // before for before, after in zip(narrow.shape, tensor.shape, strict=True))
        shared = tensor.role == "matrix" and wide_name != embedding_tensor(wide)
        yield wide_name, WideTensor(embedding_tensor(model) if tied else name, copies, shared)


def buffers(checkpoint: Checkpoint) -> Iterable[tuple[str, WideTensor]]:
    """Constants that old checkpoints hold beside the weights: of positions and of a head's width, which stay."""
    for name, entry in checkpoint.entries.items():
        if is_buffer(name):
            yield name, WideTensor(name, (1,) * len(entry.spec.shape), False)


def wide_specs(checkpoint: Checkpoint, tensors: Mapping[str, WideTensor]) -> dict[str, TensorSpec]:
    """Shape and dtype of each tensor of the wide model."""
    specs = {}
    for name, tensor in tensors.items():
        spec = checkpoint.entries[tensor.source].spec
        shape = tuple(size * count for size, count in zip(spec.shape, tensor.copies, strict=True))
        specs[name] = TensorSpec(shape, spec.dtype)
    return specs
