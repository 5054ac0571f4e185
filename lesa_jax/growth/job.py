"""Everything about an expansion that can be known, and refused, before a weight is read."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from lesa_jax import demo
from lesa_jax.base.digests import digest, digest_bytes
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_text
from lesa_jax.base.folders import check_output, free_space, nearest_folder
from lesa_jax.base.machine import cores
from lesa_jax.base.units import parse_numbers
from lesa_jax.checkpoint.companions import files_to_carry
from lesa_jax.checkpoint.hub import model_name, resolve_model
from lesa_jax.checkpoint.names import Stack
from lesa_jax.checkpoint.reader import Checkpoint, open_checkpoint
from lesa_jax.checkpoint.writer import Layout, lay_out
from lesa_jax.families.kinds import WeightKind
from lesa_jax.families.model import ModelConfig
from lesa_jax.families.periods import layer_period
from lesa_jax.families.roles import check_silenceable
from lesa_jax.families.stacks import count_stacks, find_stacks
from lesa_jax.growth.beside import in_runs, weight_kinds
from lesa_jax.growth.experts import by_tokens, by_weights, experts_of, match_experts
from lesa_jax.growth.memory import MemoryPlan, plan_memory
from lesa_jax.growth.orders import Orders, as_numbered
from lesa_jax.growth.profiled import keep_profile
from lesa_jax.growth.ranking import rank_layers
from lesa_jax.growth.recipe import Part, write_recipe
from lesa_jax.growth.settings import ExpandSettings, check_settings, norm_source, output_scale, recorded_settings
from lesa_jax.models.config import read_model
from lesa_jax.models.shapes import check_tensors
from lesa_jax.planning.config_process import grow_configs_apart
from lesa_jax.planning.depth import find_doubts
from lesa_jax.planning.methods import BUILT_IN, MEASURED, Aligned, Lesa, Method, find_method
from lesa_jax.planning.placement import make_plan, plan_stacks
from lesa_jax.planning.plan import Plan
from lesa_jax.planning.plan_file import read_plan

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
      orders: which expert is which from layer to layer; by their numbers unless the method matches them; empty without.
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
    orders: Orders
    routers_text: str | None
    doubts: tuple[str, ...]

    @property
    def preserves(self) -> bool:
        """Whether the grown model is to compute what the original computes: its new layers write nothing."""
        return output_scale(self.settings, self.method) == 0

    @property
    def shrinks(self) -> bool:
        """Whether new layers are to be so loud as what predicted them is right; calibration finds out by itself."""
        start = self.method.start
        return isinstance(start, Lesa) and start.shrunk and self.settings.calibrate is None

    @functools.cached_property
    def computed(self) -> Mapping[WeightKind, Sequence[Part]]:
        """The tensors that the method computes, by kind, in ascending order of their gaps.

        A fused tensor is of several kinds.
        """
        orders = self.orders if self.method.matches_experts else None
        found: dict[tuple[Stack, tuple[int, ...]], list[Part]] = {}
        for part in self.parts:
            if part.made == "computed":
                found.setdefault((part.stack, part.numbers[1:]), []).append(part)
        return {
            kind: sorted(parts, key=lambda part: part.numbers)
            for (stack, inner), parts in found.items()
            for kind in weight_kinds(self.checkpoint, stack, inner, orders)
        }

    @functools.cached_property
    def memory(self) -> MemoryPlan:
        """What computing new layers takes."""
        return plan_memory(self.method.start, self.settings.predictor, self.computed, self.settings.memory)

    @functools.cached_property
    def digest(self) -> str:
        """Of all that the tensors depend on, bit for bit: what was left of one job is of use to its like only."""
        return digest(
            {
                "settings": recorded_settings(self.settings, self.method),
                "plan": self.plan.to_json(),
                "files": {name: digest_bytes(header) for name, header in self.layout.headers.items()},
                "source": {str(file): stamp for file, stamp in self.checkpoint.stamps.items()},
                "orders": repr(self.orders),
                "code": {name: version(name) for name in ("lesa_jax", "jax", "numpy", "scipy")},
                "cores": cores(),
                # The code of others' methods may have changed meanwhile: they begin anew.
                "method": "" if self.settings.method in BUILT_IN else uuid4().hex,
            }
        )


def open_source(settings: ExpandSettings) -> Checkpoint:
    if settings.model is None:
        return open_checkpoint(demo.MODEL_DIRECTORY)
    return open_checkpoint(resolve_model(settings.model, settings.revision))


def source_name(settings: ExpandSettings) -> str:
    """What the output calls its source."""
    return demo.NAME if settings.model is None else model_name(settings.model)


def prepare_jobs(wanted: Sequence[ExpandSettings], checkpoint: Checkpoint) -> list[ExpandJob | InputError]:
    """A job for each settings, or why there is none: whatever can be refused without reading weights."""
    prefixes = find_stacks(checkpoint.config, checkpoint.stacks)
    depths = count_stacks(checkpoint.config)
    period = layer_period(checkpoint.config)
    planned = [or_error(lambda s=settings: plan_growth(s, checkpoint, depths, period)) for settings in wanted]
    sources = [both[0].start.sources(both[1]) for both in planned if not isinstance(both, InputError)]
    plans = list(dict.fromkeys(sources))
    configs = dict(zip(plans, grow_configs_apart(checkpoint.config, plans), strict=True)) if plans else {}

    def job(settings: ExpandSettings, both: tuple[Method, Plan] | InputError) -> ExpandJob:
        method, plan = sound(both)
        return make_job(settings, method, checkpoint, prefixes, plan, sound(configs[method.start.sources(plan)]))

    return [or_error(lambda s=s, b=b: job(s, b)) for s, b in zip(wanted, planned, strict=True)]


def plan_growth(
    settings: ExpandSettings, checkpoint: Checkpoint, depths: Sequence[int], period: int
) -> tuple[Method, Plan]:
    """The method that the settings name, and what it makes of stacks of so many layers, whose kinds repeat."""
    method = find_method(settings.method)
    check_settings(settings, method)
    if settings.plan is not None:
        return method, read_plan(settings.plan, depths, method)
    gaps = None if settings.gaps is None else parse_numbers("--gaps", settings.gaps)
    ranking = None
    if settings.placement in MEASURED and settings.placement_text is not None:
        text = read_text("--placement-text", settings.placement_text)
        ranking = rank_layers(checkpoint, settings.placement, text)

    def plan_of(depth: int) -> Plan:
        return make_plan(depth, method, settings.layers, gaps, settings.placement, settings.every, period, ranking)

    return method, plan_stacks(depths, settings.stack, plan_of)


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
    prefixes: Sequence[str],
    plan: Plan,
    config: Mapping[str, Any],
) -> ExpandJob:
    scale = output_scale(settings, method)
    if settings.calibrate is not None and plan.encoder is not None:
        raise InputError("--calibrate: is for decoders alone, not for an encoder-decoder; leave it out")
    if scale != 1 or settings.calibrate is not None:
        for prefix in prefixes:
            check_silenceable(checkpoint.config, checkpoint.stacks, prefix)
    model = or_error(lambda: read_model(checkpoint))
    orders = orders_of(settings, method, checkpoint, model)
    plans = dict(zip(prefixes, method.start.sources(plan).stacks, strict=True))
    matched = orders if method.matches_experts else None
    source = checkpoint
    if isinstance(model, ModelConfig) and model.sizes and isinstance(method.start, Aligned):
        source = in_runs(checkpoint, model)
    parts = write_recipe(source, plans, method, norm_source(settings, method), scale, matched)
    if settings.keep_profile:
        parts, config = keep_profile(sound(model), method.start.sources(plan), parts, config)
    layout = lay_out({part.name: part.spec for part in parts}, round(settings.shard_size * 1e9))
    companions = files_to_carry(checkpoint.folder)
    text = text_to_measure(settings)
    calibration = None if settings.calibrate is None else read_text("--calibrate", settings.calibrate)
    routers_text = None if settings.fit_routers is None else read_text("--fit-routers", settings.fit_routers)
    doubts = find_doubts(config, plan, checkpoint.stacks, *prefixes)
    if isinstance(model, ModelConfig):
        check_tensors(checkpoint, model)
    elif not text is calibration is routers_text is None:
        raise model  # they ask for a forward pass
    nbytes = layout.nbytes + sum(file.stat().st_size for file in companions)
    job = ExpandJob(
        settings,
        method,
        source,
        plan,
        config,
        parts,
        layout,
        companions,
        text,
        calibration,
        isinstance(model, ModelConfig),
        orders,
        routers_text,
        doubts,
    )
    check_output(settings.output, checkpoint.folder, settings.overwrite, nbytes + job.memory.scratch)
    return job


def orders_of(
    settings: ExpandSettings, method: Method, checkpoint: Checkpoint, model: ModelConfig | InputError
) -> Orders:
    """Which expert is which from layer to layer; a dry run reads no weights to find out."""
    known = model if isinstance(model, ModelConfig) else None
    if method.matches_experts:
        experts = experts_of(known, f"--method {settings.method}")
        assert known is not None
        text = None if settings.match_experts is None else read_text("--match-experts", settings.match_experts)
        if not settings.dry_run:
            check_tensors(checkpoint, known)
            if text is None:
                return match_experts(by_weights(checkpoint, known, experts))
            from lesa_jax.evaluation.sample import sample_rows  # JAX

            tokens = sample_rows(checkpoint.folder, text, known)
            return match_experts(by_tokens(checkpoint, known, experts, tokens))
    elif settings.fit_routers is not None:
        experts_of(known, "--fit-routers")
    return {} if known is None else as_numbered(known)


def text_to_measure(settings: ExpandSettings) -> str | None:
    """The user's, or for the demo model its own."""
    if settings.eval_text is not None:
        return read_text("--eval-text", settings.eval_text)
    return demo.evaluation_text() if settings.model is None else None


def check_room(jobs: Sequence[ExpandJob]) -> None:
    """Refuses outputs that fit on the disk one by one, but not together."""
    needed = sum(job.layout.nbytes for job in jobs) + max(job.memory.scratch for job in jobs)
    folder = nearest_folder(jobs[0].settings.output.parent)
    free = free_space(folder)
    if needed > free:
        raise InputError(
            f"{folder}: {len(jobs)} grown models need {needed / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free; "
            "grow fewer at a time, or choose another disk"
        )
