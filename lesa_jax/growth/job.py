"""Everything about an expansion that can be known, and refused, before a weight is read."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lesa_jax import demo
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_text
from lesa_jax.checkpoint.companions import files_to_carry
from lesa_jax.checkpoint.hub import resolve_model
from lesa_jax.checkpoint.reader import Checkpoint, open_checkpoint
from lesa_jax.checkpoint.writer import Layout, lay_out
from lesa_jax.families.fields import find_layers
from lesa_jax.families.roles import check_silenceable
from lesa_jax.growth.recipe import Part, write_recipe
from lesa_jax.growth.settings import ExpandSettings, check_settings, norm_source, output_scale, parse_gaps
from lesa_jax.planning.config_process import grow_configs_apart
from lesa_jax.planning.methods import find_method
from lesa_jax.planning.placement import make_plan
from lesa_jax.planning.plan import Plan

Value = TypeVar("Value")


@dataclass(frozen=True)
class Job:
    """Everything that is known of one way to grow, and was found good, before any weight is read."""

    settings: ExpandSettings
    checkpoint: Checkpoint
    plan: Plan
    config: Mapping[str, Any]
    parts: list[Part]
    layout: Layout
    carried: list[Path]
    text: str | None
    calibration_text: str | None

    @property
    def computed(self) -> list[Part]:
        return [part for part in self.parts if part.made == "computed"]


def open_source(settings: ExpandSettings) -> Checkpoint:
    if settings.model is None:
        return open_checkpoint(demo.MODEL_DIRECTORY)
    return open_checkpoint(resolve_model(settings.model, settings.revision))


def source_name(settings: ExpandSettings) -> str:
    """What the output calls its source: the hub id, or a folder's name without its path, which is nobody's business."""
    if settings.model is None:
        return "the lesa_jax demo model"
    folder = Path(settings.model).expanduser()
    return folder.resolve().name if folder.exists() else settings.model


def prepare(ways: Sequence[ExpandSettings], checkpoint: Checkpoint) -> list[Job | InputError]:
    """Makes the plans, and refuses whatever can be refused without reading weights."""
    prefix = find_layers(checkpoint.config, checkpoint.stacks)
    depth = max(s.starts[0] + s.sizes[0] for s in checkpoint.stacks if s.prefix == prefix)
    plans: list[Plan | InputError] = []
    for settings in ways:
        try:
            check_settings(settings)
            options = settings.layers, parse_gaps(settings.gaps), settings.placement, settings.every
            plans.append(make_plan(depth, settings.method, *options))
        except InputError as error:
            plans.append(error)
    distinct = list(dict.fromkeys(plan for plan in plans if isinstance(plan, Plan)))
    configs = dict(zip(distinct, grow_configs_apart(checkpoint.config, distinct), strict=True)) if distinct else {}
    jobs: list[Job | InputError] = []
    for settings, plan in zip(ways, plans, strict=True):
        try:
            jobs.append(make_job(settings, checkpoint, prefix, sound(plan), sound(configs[sound(plan)])))
        except InputError as error:
            jobs.append(error)
    return jobs


def sound(value: Value | InputError) -> Value:
    """The value, or its error raised."""
    if isinstance(value, InputError):
        raise value
    return value


def make_job(
    settings: ExpandSettings, checkpoint: Checkpoint, prefix: str, plan: Plan, config: Mapping[str, Any]
) -> Job:
    scale = output_scale(settings)
    if scale != 1 or settings.calibrate is not None:
        check_silenceable(checkpoint.config, checkpoint.stacks, prefix)
    method = find_method(settings.method)
    parts = write_recipe(checkpoint, prefix, plan, method, norm_source(settings), scale)
    layout = lay_out({part.name: part.stack.kind for part in parts}, round(settings.shard_size * 1e9))
    carried = files_to_carry(checkpoint.folder)
    text = evaluation_text(settings)
    calibration = None if settings.calibrate is None else read_text("--calibrate", settings.calibrate)
    if text is not None or calibration is not None:
        from lesa_jax.models.config import ModelConfig

        ModelConfig.from_hf(checkpoint.config)  # raises where there is no forward pass
    nbytes = layout.nbytes + sum(file.stat().st_size for file in carried)
    check_output(settings.output, checkpoint.folder, settings.overwrite, nbytes)
    return Job(settings, checkpoint, plan, config, parts, layout, carried, text, calibration)


def check_room(jobs: Sequence[Job]) -> None:
    """Refuses outputs that fit on the disk one by one, but not together."""
    needed = sum(job.layout.nbytes for job in jobs)
    folder = next(parent for parent in jobs[0].settings.output.resolve().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: {len(jobs)} grown models need {needed / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free; "
            "grow fewer at a time, or choose another disk"
        )


def evaluation_text(settings: ExpandSettings) -> str | None:
    """The user's, or the demo model's own."""
    if settings.eval_text is not None:
        return read_text("--eval-text", settings.eval_text)
    return demo.evaluation_text() if settings.model is None else None


def check_output(output: Path, source: Path, overwrite: bool, nbytes: int) -> None:
    """Refuses an output that is in the way, in danger or too small, before any work.

    Args:
      output: the folder to be made.
      source: the checkpoint's folder, which must survive.
      overwrite: whether an earlier output of this program may be replaced.
      nbytes: bytes that will be written.

    Raises:
      InputError: what is wrong, and the remedy.
    """
    here, there = output.resolve(), source.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise InputError(f"--output {output} and the model's folder {source} overlap; choose another output")
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file; choose a folder that does not exist yet")
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise InputError(f"--output {output} is not empty; choose another folder or add --overwrite")
        if not (output / "growth.json").exists():
            raise InputError(f"--output {output} was not written by lesa_jax (no growth.json); remove it yourself")
    parent = next(p for p in (here.parent, *here.parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"--output {output}: no permission to write in {parent}; choose another folder")
    free = shutil.disk_usage(parent).free
    if free < nbytes:
        raise InputError(
            f"--output {output}: needs {nbytes / 1e9:.2f} GB but {parent} has {free / 1e9:.2f} GB free; "
            "free some space or choose another disk"
        )
