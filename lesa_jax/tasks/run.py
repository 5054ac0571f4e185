"""A checkpoint's scores on tasks, from its settings to its results."""

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import partialmethod
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from lesa_jax import demo
from lesa_jax.base.console import report_console
from lesa_jax.base.errors import InputError, did_you_mean
from lesa_jax.base.files import read_text, write_text
from lesa_jax.base.settings import by_name, listed
from lesa_jax.checkpoint.hub import resolve_model
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.checkpoint.tokenizer import load_tokenizer
from lesa_jax.data.chat import check_chat
from lesa_jax.decoding.ends import end_tokens
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.config import read_model
from lesa_jax.models.load import load_model
from lesa_jax.parallel.mesh import whole_mesh
from lesa_jax.tasks.settings import HarnessSettings

LOCAL = Path(__file__).parent / "local"
# The eight of OpT-DeUS (arXiv 2508.08011), whose tables are without examples.
PRESETS = {
    "lesa": ("lesa_cloze", "lesa_choice", "lesa_text"),
    "opt_deus": ("arc_easy", "logiqa", "winogrande", "commonsense_qa", "boolq", "piqa", "mmlu", "wikitext"),
}

Results = dict[str, Any]


@by_name(HarnessSettings)
def harness(settings: HarnessSettings) -> Results:
    """The scores of `settings.model`, as lm-evaluation-harness writes results: of each task and metric under "results".

    Raises:
      InputError: lm-evaluation-harness is not there, no such model or task, data that cannot be had.
    """
    return ask(settings, find_tasks(settings))


class FoundTasks(NamedTuple):
    """What is asked: names of tasks, and lm-evaluation-harness's manager that loads them."""

    names: list[str]
    manager: Any


def find_tasks(settings: HarnessSettings) -> FoundTasks:
    """The tasks that the settings name, without their data. To look through all that there are takes seconds.

    Raises:
      InputError: options that mean nothing, lm-evaluation-harness is not there, no such task.
    """
    check(settings)
    folders = [LOCAL, *([] if settings.include_path is None else [settings.include_path])]
    text = None if settings.text is None else str(settings.text)
    options: Any = {"include_path": list(map(str, folders)), "metadata": {"text": text} if text else {}}
    names = asked(settings.tasks)
    with quiet(settings.debug):
        _, manager_class, _ = harness_parts()
        manager = manager_class(include_defaults=False, **options)
        if not set(names) <= set(manager.all_tasks):
            manager = manager_class(**options)  # reads thousands of files
    check_tasks(names, manager.all_tasks)
    return FoundTasks(names, manager)


def try_tasks(tasks: FoundTasks) -> None:
    """Loads the tasks, before there is a model to ask. Raises InputError where their data cannot be had."""
    with quiet(False), task_errors(tasks.names):
        tasks.manager.load([*tasks.names])


def ask(settings: HarnessSettings, tasks: FoundTasks, resamples: int = 100_000) -> Results:
    """The scores on tasks that were found before.

    Args:
      settings: what is asked, and how.
      tasks: those of the settings.
      resamples: bootstrap samples that standard errors without a formula come from; the default's take seconds a task.
    """
    mesh = whole_mesh(settings.mesh)
    with quiet(settings.debug):
        simple_evaluate, _, model_class = harness_parts()
        folder = resolve_model(demo.named(settings.model), settings.revision)
        check_decoder(folder, read_model(open_checkpoint(folder)))
        tokenizer: Any = load_tokenizer(folder)
        if settings.chat:
            check_chat(tokenizer)
        params, config = load_model(folder, mesh)
        model = model_class(
            params,
            config,
            tokenizer,
            end_tokens(folder, tokenizer),
            settings.batch_size,
            settings.max_length,
            settings.dtype,
        )
        with task_errors(tasks.names):
            results: Any = simple_evaluate(
                model=model,
                tasks=[*tasks.names],
                num_fewshot=settings.num_fewshot,
                batch_size=settings.batch_size,
                limit=settings.limit,
                task_manager=tasks.manager,
                apply_chat_template=settings.chat,
                log_samples=False,
                bootstrap_iters=resamples,
            )
    results["config"]["model_args"] = {"model": settings.model or "demo"}
    if settings.output is not None:
        settings.output.parent.mkdir(parents=True, exist_ok=True)
        write_text(settings.output, json.dumps(results, indent=2, default=str))
    return results


def check_decoder(folder: Path, config: ModelConfig) -> None:
    """Refuses a model that cannot be asked."""
    if config.encoder is not None:
        raise InputError(f"{folder}: a {config.model_type} model has an encoder, which tasks cannot be asked by here")


def harness_parts() -> tuple[Any, Any, Any]:
    """What evaluates, the class that knows tasks, and the model that it evaluates, where the package is installed."""
    try:
        from lm_eval.evaluator import simple_evaluate
        from lm_eval.tasks import TaskManager

        from lesa_jax.tasks.adapter import HarnessModel
    except ImportError as error:
        raise InputError(f"lm-evaluation-harness is not installed ({error}); pip install 'lm-eval>=0.4.13'") from None
    return simple_evaluate, TaskManager, HarnessModel


def check(settings: HarnessSettings) -> None:
    """Refuses, before anything is loaded, what cannot be."""
    for name in ("batch_size", "max_length", "limit"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: expected at least 1")
    if settings.num_fewshot is not None and settings.num_fewshot < 0:
        raise InputError(f"--num-fewshot {settings.num_fewshot}: expected 0 or more")
    if settings.text is not None:
        read_text("--text", settings.text)
    if settings.include_path is not None and not settings.include_path.is_dir():
        raise InputError(f"--include-path {settings.include_path}: no such folder")
    if settings.output is not None and settings.output.is_dir():
        raise InputError(f"--output {settings.output}: is a folder; name a file")


def asked(tasks: str) -> list[str]:
    """The names of a list with commas, presets spelt out."""
    found = [name for word in listed(tasks) for name in PRESETS.get(word, (word,))]
    if not found:
        raise InputError("--tasks: names none")
    return list(dict.fromkeys(found))


def check_tasks(tasks: list[str], known: list[str]) -> None:
    """Refuses a task that there is not."""
    for name in tasks:
        if name not in known:
            raise InputError(
                f"--tasks: no task {name}{did_you_mean(name, known)}; `lm_eval ls tasks` lists all, "
                "and --include-path names a folder with more"
            )


@contextmanager
def quiet(loud: bool) -> Iterator[None]:
    """A block in which lm-evaluation-harness says nothing, unless it is to, and starts no processes: JAX's threads are
    not to be forked."""
    os.environ["DISABLE_MULTIPROC"] = "1"
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.INFO if loud else logging.CRITICAL)
    try:
        with redirect_stdout(sys.stderr if loud else io.StringIO()), nullcontext() if loud else without_bars():
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def without_bars() -> Iterator[None]:
    """A block in which tqdm shows none, unless asked to. It heeds its own variable for that only while it is imported,
    which it may be already."""
    from tqdm import tqdm

    bar: Any = tqdm
    before = bar.__init__
    bar.__init__ = partialmethod(before, disable=True)
    try:
        yield
    finally:
        bar.__init__ = before


@contextmanager
def task_errors(tasks: list[str]) -> Iterator[None]:
    """A block in which an error of a task's own, most often that its data cannot be had, is one line."""
    try:
        yield
    except (InputError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise InputError(
            f"--tasks {','.join(tasks)}: {reason}; are the tasks' data here, or is there a network?"
        ) from error


def show(results: Results) -> None:
    """A table on stdout."""
    table = Table("task", "shots", "metric", "value", "standard error")
    for task, scores in results["results"].items():
        for name, value in scores.items():
            metric, _, way = name.partition(",")
            if way and not metric.endswith("_stderr") and isinstance(value, (int, float)):
                error = scores.get(f"{metric}_stderr,{way}")
                shown = f"{error:.4f}" if isinstance(error, float) else ""
                table.add_row(task, str(results["n-shot"].get(task, "")), metric, f"{value:.4f}", shown)
    report_console().print(table)
