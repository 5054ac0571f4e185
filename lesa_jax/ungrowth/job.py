"""Everything about an ungrowth that can be known, and refused, before a weight is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.base.folders import check_output
from lesa_jax.checkpoint.companions import files_to_carry
from lesa_jax.checkpoint.format import FLOATS, SHARD_SIZE, WEIGHTS, TensorSpec
from lesa_jax.checkpoint.hub import resolve_model
from lesa_jax.checkpoint.names import parse, render
from lesa_jax.checkpoint.reader import Checkpoint, Entry, open_checkpoint
from lesa_jax.checkpoint.writer import Layout, lay_out, lay_out_files
from lesa_jax.families.entries import is_integer
from lesa_jax.families.periods import traps
from lesa_jax.families.stacks import count_stacks, find_stacks
from lesa_jax.planning.config import undo_changes
from lesa_jax.planning.config_process import grow_configs_apart
from lesa_jax.planning.methods import METHODS
from lesa_jax.planning.plan import Plan
from lesa_jax.planning.record import FILE as GROWTH_FILE
from lesa_jax.planning.record import Growth, damaged, read_growth
from lesa_jax.ungrowth.choice import choose
from lesa_jax.ungrowth.settings import UngrowSettings, check_settings


@dataclass(frozen=True)
class UngrowJob:
    """Layers to be taken out of a grown checkpoint, and all that is known of what is left.

    Attributes:
      settings: as given.
      checkpoint: the grown one.
      growth: its growth.json.
      dropped: of each of its stacks, the numbers of the layers that go.
      left: its plan without the layers that go.
      source_config: config.json before growth.
      config, entries, layout: config.json, tensors by their new names, and files of the output.
      as_source: whether the files are to be those of the source, each with the same tensors in the same order.
      companions: files of the grown checkpoint that go along.
    """

    settings: UngrowSettings
    checkpoint: Checkpoint
    growth: Growth
    dropped: tuple[Sequence[int], ...]
    left: Plan
    source_config: Mapping[str, Any]
    config: Mapping[str, Any]
    entries: Mapping[str, Entry]
    layout: Layout
    as_source: bool
    companions: Sequence[Path]

    @property
    def notes(self) -> tuple[str, ...]:
        """What other programs may not understand of the new layers that stay, as `growth.summary` has it."""
        if self.left.is_original:
            return ()
        left = self.left
        return traps(self.source_config, left.old_layers, left.layers, left.encoder and left.encoder.layers)

    @property
    def parameters(self) -> int:
        """That are left."""
        return sum(prod(entry.spec.shape) for entry in self.entries.values() if entry.spec.dtype in FLOATS)


def prepare_job(settings: UngrowSettings) -> UngrowJob:
    """Opens the grown checkpoint and checks every option against it.

    Raises:
      InputError: whatever is wrong, before anything is written.
    """
    check_settings(settings)
    assert settings.model is not None
    checkpoint = open_checkpoint(resolve_model(settings.model, settings.revision))
    growth = read_growth(checkpoint.folder, *count_stacks(checkpoint.config)[::-1])
    dropped = choose(settings, growth.plan)
    left = growth.plan.without(dropped)
    entries = entries_left(checkpoint, growth.plan, dropped)
    specs = {name: entry.spec for name, entry in entries.items()}
    files = source_files(growth, specs) if left.is_original else None
    layout = lay_out(specs, SHARD_SIZE) if files is None else lay_out_files(files)
    companions = files_to_carry(checkpoint.folder)
    nbytes = layout.nbytes + sum(file.stat().st_size for file in companions)
    check_output(settings.output, checkpoint.folder, settings.overwrite, nbytes)
    source = config_before(checkpoint, growth)
    config = config_left(checkpoint, growth, left, source)
    return UngrowJob(
        settings, checkpoint, growth, dropped, left, source, config, entries, layout, files is not None, companions
    )


def entries_left(checkpoint: Checkpoint, plan: Plan, dropped: Sequence[Sequence[int]]) -> dict[str, Entry]:
    """The tensors that stay, by the names that they get, in the order in which they lie in their files."""
    prefixes = find_stacks(checkpoint.config, checkpoint.stacks)
    numbers_of: dict[str, dict[int, int]] = {}  # old numbers to new ones
    for prefix, stack, gone in zip(prefixes, plan.stacks, dropped, strict=True):
        kept = (position for position in range(stack.layers) if position not in gone)
        numbers_of[prefix] = {position: number for number, position in enumerate(kept)}
    entries = {}
    for entry in sorted(checkpoint.entries.values(), key=lambda e: (e.file, e.start)):
        template, numbers = parse(entry.name)
        moved = numbers_of.get(template.split("*", 1)[0])
        if moved is None:
            entries[entry.name] = entry
        elif numbers[0] in moved:
            entries[render(template, (moved[numbers[0]], *numbers[1:]))] = entry
    return entries


def config_before(checkpoint: Checkpoint, growth: Growth) -> Mapping[str, Any]:
    """config.json of the source.

    Raises:
      InputError: growth.json does not tell what growth changed in it, or is damaged.
    """
    file, changes = checkpoint.folder / GROWTH_FILE, growth.source.get("config")
    if changes is None:
        raise InputError(
            f"{file}: does not say what growth changed in config.json, as it did not in earlier versions of lesa_jax; "
            "add source.config as docs/file-formats.md has it, or grow the model again"
        )
    if not is_changes(changes):
        raise damaged(file, "config in its source has no entries or no list of absent ones")
    source = undo_changes(checkpoint.config, changes)
    if count_stacks(source) != tuple(stack.source_layers for stack in growth.plan.stacks):
        raise damaged(file, "with the entries of its source, config.json has another number of layers than its plan")
    return source


def config_left(checkpoint: Checkpoint, growth: Growth, left: Plan, source: Mapping[str, Any]) -> Mapping[str, Any]:
    """config.json of what is left: the source's, grown again where some of the new layers stay.

    Raises:
      InputError: a method that is not known here, or a config.json that cannot be grown.
    """
    if left.is_original:
        return source
    if growth.method not in METHODS:
        raise InputError(
            f"{checkpoint.folder / GROWTH_FILE}: made by --method {growth.method}, which is not registered here; "
            "register it before, or take all new layers out"
        )
    [config] = grow_configs_apart(source, [METHODS[growth.method].start.sources(left)])
    if isinstance(config, InputError):
        raise config
    return config


def is_changes(value: Any) -> bool:
    """Whether this is what `config_changes` gives."""
    if not isinstance(value, dict):
        return False
    entries, absent = value.get("entries"), value.get("absent")
    return isinstance(entries, dict) and isinstance(absent, list) and all(isinstance(key, str) for key in absent)


def source_files(growth: Growth, specs: Mapping[str, TensorSpec]) -> dict[str, dict[str, TensorSpec]] | None:
    """The source's weight files and the tensors in each; None where growth.json does not tell.

    Growth keeps the originals in the order in which they lay there, so that it is enough to count them.
    """
    counts = growth.source.get("tensors")
    if not isinstance(counts, dict) or not all(is_integer(count) and count > 0 for count in counts.values()):
        return None
    plain = all(Path(file).name == file and file.endswith(".safetensors") and file[0] != "." for file in counts)
    if not plain or sum(counts.values()) != len(specs) or (len(counts) == 1) != (WEIGHTS in counts):
        return None
    tensors = iter(specs.items())
    return {file: dict(islice(tensors, counts[file])) for file in sorted(counts)}
