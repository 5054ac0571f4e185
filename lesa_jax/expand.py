"""Makes a trained checkpoint deeper: `python -m lesa_jax.expand --model DIR_OR_HUB_ID --output DIR [options]`.

Reads a Hugging Face checkpoint, puts new layers between the old ones, and writes a Hugging Face checkpoint. Original
tensors are copied byte for byte; peak memory follows one kind of weight, never the model.
"""

import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from rich.progress import Progress

from lesa_jax import demo
from lesa_jax.carry import carry, files_to_carry
from lesa_jax.checkpoint import DTYPES, FLOATS, Checkpoint, open_checkpoint, read, read_bytes, release
from lesa_jax.cli import progress_bars, read_text, run_command
from lesa_jax.errors import InputError
from lesa_jax.gate import check_silenceable
from lesa_jax.growth import FILE as GROWTH_FILE
from lesa_jax.growth import Growth
from lesa_jax.hf_config import find_layers, grow_config_apart
from lesa_jax.hub import resolve_model
from lesa_jax.integrity import check_finite, hash_files
from lesa_jax.plan import PRESETS, Method, Placement, Plan, make_plan
from lesa_jax.recipe import NormSource, Part, kind_name, prediction_memory, weight_kinds, write_recipe
from lesa_jax.report import ExpandReport, KindReport, model_card, print_report
from lesa_jax.writer import Layout, TensorWriter, check_output, lay_out, publish, write_index, write_json, write_text

if TYPE_CHECKING:
    from lesa_jax.predictor import PredictorSettings


@dataclass(frozen=True)
class ExpandSettings:
    """Make a trained language model deeper by putting new layers between the old ones.

    Without options, the small demo model that comes with lesa_jax grows from 16 to 24 layers into ./expanded. Works on
    any Hugging Face checkpoint whose tensors carry layer numbers; perplexity is measured for llama, qwen2 and mistral.

    Examples:
      python -m lesa_jax.expand --model ./Llama-3-8B --output ./Llama-3-11B
      python -m lesa_jax.expand --model Qwen/Qwen2.5-1.5B --output out --gaps 14-26 --eval-text sample.txt
      python -m lesa_jax.expand --model ./my-model --output out --method llama_pro --layers 40 --dry-run
    """

    model: str | None = None
    """Folder with config.json and safetensors, or a hub id (org/name). By default the demo model."""
    output: Path = Path("expanded")
    """Folder to create."""
    revision: str | None = None
    """Branch, tag or commit, for a hub id."""

    method: Method = "lesa"
    """lesa: layers predicted from both neighbours. llama_pro: copies with silenced outputs (the function does not
    change). solar: two overlapping copies of the model stacked. duplicate: plain copies in place."""
    layers: int | None = None
    """Target depth; by default one and a half times the model's."""
    gaps: str | None = None
    """Where exactly, instead of --layers: 15-30 or 3,5,7. Gap g lies between layers g and g+1; one new layer each."""
    placement: Placement | None = None
    """Where --layers puts them: top is LESA's default, even that of llama_pro and duplicate."""
    norm_source: NormSource = "first"
    """lesa: whose norm weights and biases a new layer gets. first (layer 0) is what the public code does."""
    seed: int = 0
    """lesa: seed of the predictor's initial weights and of the order of its samples."""
    space: Literal["svd", "raw"] = "svd"
    """lesa: predict rows of V in the shared singular basis, or rows of the weights themselves."""
    epochs: int = 10
    """lesa: passes over the samples. The paper's text says 5, its code 10."""
    batch_size: int = 64
    """lesa: samples per step."""
    learning_rate: float = 1e-3
    """lesa: AdamW's step size."""
    norm_weight: float = 5e-4
    """lesa: weight of the norm term in the loss. The paper's text says 5e-5, its code 5e-4."""
    hidden_size: int = 256
    """lesa: width of the predictor."""

    eval_text: Path | None = None
    """Measure perplexity on this text before and after."""
    ppl_protocol: Literal["corpus", "line"] = "corpus"
    """corpus: exp(loss per token of the whole text). line: mean over lines of exp(loss of a line), as in the paper."""
    sequence_length: int | None = None
    """Tokens per window of the corpus protocol; by default 1024, or fewer if the model has fewer positions."""

    shard_size: float = 5.0
    """Largest size of an output file in GB (1e9 bytes)."""
    dry_run: bool = False
    """Print plan, parameters, memory and bytes to write; touch nothing."""
    overwrite: bool = False
    """Replace an earlier output of this program."""


# Settings that say where things lie or what is shown, not what the result is.
NOT_RECORDED = ("model", "output", "revision", "eval_text", "dry_run", "overwrite")
LESA_ONLY = ("norm_source", "seed", "space", "epochs", "batch_size", "learning_rate", "norm_weight", "hidden_size")


@dataclass(frozen=True)
class Job:
    """Everything that is known, and was found good, before any weight is read."""

    settings: ExpandSettings
    checkpoint: Checkpoint
    plan: Plan
    config: Mapping[str, Any]
    parts: list[Part]
    layout: Layout
    carried: list[Path]
    text: str | None

    @property
    def predicted(self) -> list[Part]:
        return [part for part in self.parts if part.made == "predict"]


def expand(settings: ExpandSettings) -> ExpandReport:
    """Grows a checkpoint; see `ExpandSettings`.

    Returns:
      What was done and measured; for a dry run, what would be done.

    Raises:
      InputError: bad input, found before anything is written; nothing carries the output's name then.
    """
    seconds: dict[str, float] = {}
    perplexity: dict[str, float] = {}
    with second_thread() as background:
        with stage(seconds, "check"):
            job = prepare(settings)
            if settings.dry_run:
                return summarise(job, seconds, {}, {})
            finite = background.submit(check_finite, job.checkpoint)
            warm_up(job)
            finite.result()
        digests = background.submit(hash_files, job.checkpoint.files)
        with progress_bars() as progress, publish(settings.output) as folder:
            if job.text is not None:
                with stage(seconds, "perplexity"):
                    perplexity["before"] = measure(job.checkpoint.folder, job)
            kinds = write_weights(job, folder, seconds, progress)
            carry(job.carried, folder)
            write_json(folder / "config.json", job.config)
            if job.text is not None:
                with stage(seconds, "perplexity"):
                    perplexity["after"] = measure(folder, job)
            with stage(seconds, "hash"):
                source = {"model": source_name(settings), "revision": settings.revision, "sha256": digests.result()}
            result = summarise(job, seconds, kinds, perplexity)
            write_json(folder / GROWTH_FILE, record(job, source, result).to_json())
            write_text(folder / "README.md", model_card(result, source_name(settings)))
    return result


def source_name(settings: ExpandSettings) -> str:
    """What the output calls its source: the hub id, or a folder's name without its path, which is nobody's business."""
    if settings.model is None:
        return "the lesa_jax demo model"
    folder = Path(settings.model).expanduser()
    return folder.resolve().name if folder.exists() else settings.model


@contextmanager
def second_thread() -> Iterator[Executor]:
    """A thread for work beside the main one's; after an error or Ctrl-C nobody waits for it."""
    executor = ThreadPoolExecutor(1)
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()


@contextmanager
def stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Adds the block's wall-clock time to `seconds[name]`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


def prepare(settings: ExpandSettings) -> Job:
    """Opens the checkpoint, makes the plan, and refuses whatever can be refused without reading weights."""
    preset = PRESETS[settings.method]
    check_settings(settings)
    source = demo.MODEL_DIRECTORY if settings.model is None else resolve_model(settings.model, settings.revision)
    checkpoint = open_checkpoint(source)
    prefix = find_layers(checkpoint.config, checkpoint.stacks)
    depth = max(s.starts[0] + s.sizes[0] for s in checkpoint.stacks if s.prefix == prefix)
    plan = make_plan(depth, settings.method, settings.layers, parse_gaps(settings.gaps), settings.placement)
    if preset.silent:
        check_silenceable(checkpoint.config, checkpoint.stacks, prefix)
    config = grow_config_apart(checkpoint.config, plan)
    parts = write_recipe(checkpoint, prefix, plan, preset, settings.norm_source)
    layout = lay_out({part.name: part.stack.kind for part in parts}, round(settings.shard_size * 1e9))
    carried = files_to_carry(source)
    text = evaluation_text(settings)
    if text is not None:
        from lesa_jax.models.config import ModelConfig

        ModelConfig.from_hf(checkpoint.config)  # raises where there is no forward pass
    nbytes = layout.nbytes + sum(file.stat().st_size for file in carried)
    check_output(settings.output, source, settings.overwrite, nbytes)
    return Job(settings, checkpoint, plan, config, parts, layout, carried, text)


def check_settings(settings: ExpandSettings) -> None:
    """Refuses options that contradict each other or cannot mean anything."""
    if settings.method != "lesa":
        defaults = {f.name: f.default for f in fields(ExpandSettings)}
        for name in LESA_ONLY:
            if getattr(settings, name) != defaults[name]:
                raise InputError(f"--{name.replace('_', '-')} belongs to --method lesa, not to {settings.method}")
    for name in ("epochs", "batch_size", "learning_rate", "hidden_size", "shard_size"):
        if not getattr(settings, name) > 0:
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)}: must be positive")
    if not 0 <= settings.norm_weight < 1:
        raise InputError(f"--norm-weight {settings.norm_weight}: must lie in [0, 1)")
    if settings.sequence_length is not None and settings.sequence_length < 2:
        raise InputError(f"--sequence-length {settings.sequence_length}: at least 2 tokens are needed to predict one")


def parse_gaps(gaps: str | None) -> list[int] | None:
    """`15-30` or `3,5,7`, or both mixed, as a list of gaps."""
    if gaps is None:
        return None
    numbers: list[int] = []
    for word in gaps.split(","):
        first, dash, last = word.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise InputError(f"--gaps {gaps}: {word!r} is neither a number nor a range; write 15-30 or 3,5,7")
        if len(first) > 4 or len(last) > 4:
            raise InputError(f"--gaps {gaps}: {word!r}: no model has that many layers")
        numbers += range(int(first), int(last if dash else first) + 1)
    return numbers


def evaluation_text(settings: ExpandSettings) -> str | None:
    """The user's, or the demo model's own."""
    if settings.eval_text is not None:
        return read_text("--eval-text", settings.eval_text)
    return demo.evaluation_text() if settings.model is None else None


def warm_up(job: Job) -> None:
    """Imports JAX and compiles what comes first, for methods that predict; copying needs no JAX.

    This also keeps the import out of the time when the output's folder exists: an import that is interrupted can abort
    the process, which would leave the folder behind.
    """
    if job.predicted:
        from lesa_jax.predict import compile_batch

        first = weight_kinds(job.predicted)[0]
        compile_batch(job.checkpoint, job.predicted, predictor_settings(job.settings), job.settings.space, first)


def predictor_settings(settings: ExpandSettings) -> "PredictorSettings":
    from lesa_jax.predictor import PredictorSettings  # with JAX, which only prediction needs

    return PredictorSettings(
        hidden_size=settings.hidden_size,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        norm_weight=settings.norm_weight,
    )


def write_weights(job: Job, folder: Path, seconds: dict[str, float], progress: Progress) -> dict[str, KindReport]:
    """Writes every tensor of the grown model: predicted, copied, averaged or zero."""
    written = progress.add_task("bytes written", total=job.layout.nbytes, note="")
    writer = TensorWriter(folder, job.layout, lambda nbytes: progress.advance(written, nbytes))
    options = job.settings
    try:
        kinds = {}
        if job.predicted:
            from lesa_jax.predict import predict_new_layers

            with stage(seconds, "predict"):
                kinds = predict_new_layers(
                    job.checkpoint,
                    job.predicted,
                    predictor_settings(options),
                    options.space,
                    options.seed,
                    writer,
                    progress,
                )
        with stage(seconds, "copy"):
            for part in job.parts:
                if part.made != "predict":
                    writer.write(part.name, part_bytes(job.checkpoint, part))
                    release(job.checkpoint)
            writer.close()
        write_index(folder, job.layout)
    finally:
        writer.abandon()
    return kinds


def part_bytes(checkpoint: Checkpoint, part: Part) -> bytes | memoryview:
    """The bytes of a tensor that is not predicted."""
    if part.made == "copy":
        return read_bytes(checkpoint, checkpoint.entries[part.sources[0]])
    dtype = DTYPES[part.stack.kind.dtype]
    if part.made == "zero":
        return np.zeros(part.stack.kind.shape, dtype).tobytes()
    mean = np.mean([read(checkpoint, name).astype(np.float64) for name in part.sources], axis=0)
    return mean.astype(dtype).tobytes()


def measure(folder: Path, job: Job) -> float:
    """Perplexity of the checkpoint in `folder` on the evaluation text."""
    from lesa_jax.evaluate import EvaluateSettings, evaluate_text

    assert job.text is not None
    options = EvaluateSettings(
        str(folder), ppl_protocol=job.settings.ppl_protocol, sequence_length=job.settings.sequence_length
    )
    return evaluate_text(job.text, options)["perplexity"]


def summarise(
    job: Job, seconds: Mapping[str, float], kinds: Mapping[str, KindReport], perplexity: Mapping[str, float]
) -> ExpandReport:
    floats = [part for part in job.parts if part.stack.kind.dtype in FLOATS]
    sizes = [math.prod(part.stack.kind.shape) for part in floats]
    return ExpandReport(
        method=job.settings.method,
        output=job.settings.output,
        plan=job.plan,
        parameters=(job.checkpoint.parameters, sum(sizes)),
        new_parameters=sum(size for part, size in zip(floats, sizes, strict=True) if part.new),
        nbytes=job.layout.nbytes,
        perplexity=dict(perplexity),
        kinds=dict(kinds),
        silenced=tuple(sorted({kind_name(part.stack) for part in job.parts if part.made == "zero"})),
        seconds=dict(seconds),
        peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        estimated_memory=prediction_memory(job.predicted),
        dry_run=job.settings.dry_run,
    )


def record(job: Job, source: Mapping[str, Any], result: ExpandReport) -> Growth:
    """growth.json of the output."""
    settings = {key: value for key, value in asdict(job.settings).items() if key not in NOT_RECORDED}
    if job.settings.method != "lesa":
        settings = {key: value for key, value in settings.items() if key not in LESA_ONLY}
    measurements = {
        "parameters": {"before": result.parameters[0], "after": result.parameters[1]},
        "perplexity": result.perplexity,
        "kinds": {name: asdict(kind) for name, kind in result.kinds.items()},
    }
    return Growth(job.settings.method, job.plan, settings, source, measurements)


def main() -> int:
    return run_command(expand, ExpandSettings, print_report)


if __name__ == "__main__":
    sys.exit(main())
