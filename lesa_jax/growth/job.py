"""Everything about an expansion that can be known, and refused, before a weight is read."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lesa_jax import demo
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import LONGEST_NAME, read_text
from lesa_jax.base.folders import check_apart, check_writable, foreign, free_space, nearest_folder
from lesa_jax.checkpoint.companions import files_to_carry
from lesa_jax.checkpoint.hub import resolve_model
from lesa_jax.checkpoint.names import Stack
from lesa_jax.checkpoint.reader import Checkpoint, open_checkpoint
from lesa_jax.checkpoint.writer import Layout, lay_out
from lesa_jax.families.fields import find_layers
from lesa_jax.families.model import ModelConfig
from lesa_jax.families.periods import layer_period
from lesa_jax.families.roles import check_silenceable
from lesa_jax.growth.beside import weight_kinds
from lesa_jax.growth.memory import check_memory
from lesa_jax.growth.recipe import Part, write_recipe
from lesa_jax.growth.settings import ExpandSettings, check_settings, norm_source, output_scale, parse_gaps
from lesa_jax.growth.weights import WeightKind
from lesa_jax.models.config import read_model
from lesa_jax.models.shapes import check_tensors
from lesa_jax.planning.config_process import grow_configs_apart
from lesa_jax.planning.depth import find_doubts
from lesa_jax.planning.methods import Method, find_method
from lesa_jax.planning.placement import make_plan
from lesa_jax.planning.plan import Plan

Value = TypeVar("Value")


@dataclass(frozen=True)
class ExpandJob:
    """One way to grow a checkpoint: all that is known of it, and was found good, before any weight is read.

    Attributes:
      settings: as given.
      method: that they name.
      checkpoint: the original.
      plan, config, parts, layout: layers, config.json, tensors and files of the output.
      companions: files of the original that go along.
      text: to measure perplexity on, if that is wanted.
      calibration_text: to find the scales of new layers on, if that is wanted.
      runs: whether there is a forward pass for the model.
      doubts: why old layers may not compute what they did, now that their numbers are others (`planning.depth`).
    """

    settings: ExpandSettings
    method: Method
    checkpoint: Checkpoint
    plan: Plan
    config: Mapping[str, Any]
    parts: Sequence[Part]
    layout: Layout
    companions: Sequence[Path]
    text: str | None
    calibration_text: str | None
    runs: bool
    doubts: tuple[str, ...]

    @property
    def preserves(self) -> bool:
        """Whether the grown model is to compute what the original computes: its new layers write nothing."""
        return output_scale(self.settings, self.method) == 0

    @functools.cached_property
    def computed(self) -> Mapping[WeightKind, Sequence[Part]]:
        """The tensors that the method computes, by kind, in ascending order of their gaps.

        A fused tensor is of several kinds.
        """
        found: dict[tuple[Stack, tuple[int, ...]], list[Part]] = {}
        for part in self.parts:
            if part.made == "computed":
                found.setdefault((part.stack, part.numbers[1:]), []).append(part)
        return {
            kind: sorted(parts, key=lambda part: part.numbers)
            for (stack, inner), parts in found.items()
            for kind in weight_kinds(self.checkpoint, stack, inner)
        }


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


def prepare_jobs(wanted: Sequence[ExpandSettings], checkpoint: Checkpoint) -> list[ExpandJob | InputError]:
    """A job for each settings, or why there is none: whatever can be refused without reading weights."""
    prefix = find_layers(checkpoint.config, checkpoint.stacks)
    depth = max(s.starts[0] + s.sizes[0] for s in checkpoint.stacks if s.prefix == prefix)
    period = layer_period(checkpoint.config)
    planned = [or_error(lambda s=settings: plan_growth(s, depth, period)) for settings in wanted]
    sources = [both[0].start.sources(both[1]) for both in planned if not isinstance(both, InputError)]
    plans = list(dict.fromkeys(sources))
    configs = dict(zip(plans, grow_configs_apart(checkpoint.config, plans), strict=True)) if plans else {}

    def job(settings: ExpandSettings, both: tuple[Method, Plan] | InputError) -> ExpandJob:
        method, plan = sound(both)
        return make_job(settings, method, checkpoint, prefix, plan, sound(configs[method.start.sources(plan)]))

    return [or_error(lambda s=s, b=b: job(s, b)) for s, b in zip(wanted, planned, strict=True)]


def plan_growth(settings: ExpandSettings, depth: int, period: int) -> tuple[Method, Plan]:
    """The method that the settings name, and what it makes of a model of so many layers, whose kinds repeat."""
    method = find_method(settings.method)
    check_settings(settings, method)
    gaps = parse_gaps(settings.gaps)
    return method, make_plan(depth, method, settings.layers, gaps, settings.placement, settings.every, period)


def or_error(make: Callable[[], Value]) -> Value | InputError:
    """What `make` gives, or the error that it raises."""
    try:
        return make()
    except InputError as error:
        return error


def sound(value: Value | InputError) -> Value:
    """The value, or its error raised."""
    if isinstance(value, InputError):
        raise value
    return value


def make_job(
    settings: ExpandSettings,
    method: Method,
    checkpoint: Checkpoint,
    prefix: str,
    plan: Plan,
    config: Mapping[str, Any],
) -> ExpandJob:
    scale = output_scale(settings, method)
    if scale != 1 or settings.calibrate is not None:
        check_silenceable(checkpoint.config, checkpoint.stacks, prefix)
    parts = write_recipe(checkpoint, prefix, method.start.sources(plan), method, norm_source(settings, method), scale)
    layout = lay_out({part.name: part.stack.spec for part in parts}, round(settings.shard_size * 1e9))
    companions = files_to_carry(checkpoint.folder)
    text = text_to_measure(settings)
    calibration = None if settings.calibrate is None else read_text("--calibrate", settings.calibrate)
    doubts = find_doubts(config, plan, checkpoint.stacks, prefix)
    model = or_error(lambda: read_model(checkpoint))
    if isinstance(model, ModelConfig):
        check_tensors(checkpoint, model)
    elif text is not None or calibration is not None:
        raise model  # both ask for a forward pass
    nbytes = layout.nbytes + sum(file.stat().st_size for file in companions)
    check_output(settings.output, checkpoint.folder, settings.overwrite, nbytes)
    job = ExpandJob(
        settings,
        method,
        checkpoint,
        plan,
        config,
        parts,
        layout,
        companions,
        text,
        calibration,
        isinstance(model, ModelConfig),
        doubts,
    )
    check_memory(method.start, settings.predictor, job.computed)
    return job


def text_to_measure(settings: ExpandSettings) -> str | None:
    """The user's, or for the demo model its own."""
    if settings.eval_text is not None:
        return read_text("--eval-text", settings.eval_text)
    return demo.evaluation_text() if settings.model is None else None


def check_room(jobs: Sequence[ExpandJob]) -> None:
    """Refuses outputs that fit on the disk one by one, but not together."""
    needed = sum(job.layout.nbytes for job in jobs)
    folder = nearest_folder(jobs[0].settings.output.parent)
    free = free_space(folder)
    if needed > free:
        raise InputError(
            f"{folder}: {len(jobs)} grown models need {needed / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free; "
            "grow fewer at a time, or choose another disk"
        )


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
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in output.parts):
        raise InputError(
            f"--output: a name of more than {LONGEST_NAME} bytes, which no disk takes; choose a shorter one"
        )
    check_apart(output, source)
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file; choose a folder that does not exist yet")
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise InputError(f"--output {output} is not empty; choose another folder or add --overwrite")
        if (found := foreign(output)) is not None:
            raise InputError(
                f"--output {output} holds {found}, which lesa_jax did not write there or which was changed since; move "
                "it away, or choose another folder"
            )
    parent = nearest_folder(output.resolve().parent)
    check_writable(output, parent)
    free = free_space(parent)
    if free < nbytes:
        raise InputError(
            f"--output {output}: needs {nbytes / 1e9:.2f} GB but {parent} has {free / 1e9:.2f} GB free; "
            "free some space or choose another disk"
        )
