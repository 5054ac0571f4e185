"""A model looked at layer by layer, from its settings to the report."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from lesa_jax import demo
from lesa_jax.analysis.effects import FIRST, LAST
from lesa_jax.analysis.measure import measure
from lesa_jax.analysis.page import page
from lesa_jax.analysis.panels import text_panels, weight_panels
from lesa_jax.analysis.pictures import draw_panels
from lesa_jax.analysis.result import Analysis
from lesa_jax.analysis.settings import FEWEST, AnalyzeSettings, check_settings
from lesa_jax.analysis.weights import kinds_of, measure_weights
from lesa_jax.base.console import progress_bars
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_text, write_json, write_text
from lesa_jax.base.folders import check_apart, check_output, claim, publish
from lesa_jax.base.settings import by_name
from lesa_jax.checkpoint.hub import resolve_model
from lesa_jax.checkpoint.reader import Checkpoint, open_checkpoint
from lesa_jax.evaluation.sample import sample_rows
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.config import read_model
from lesa_jax.models.shapes import check_tensors
from lesa_jax.planning.plan import Plan
from lesa_jax.planning.record import FILE as GROWTH_FILE
from lesa_jax.planning.record import read_growth

ANALYSIS, PLAN, REPORT = "analysis.json", "plan.json", "report.html"
LAYERS_PNG, MATRICES_PNG = "layers.png", "matrices.png"
STEPS = 3  # for each layer, see `measure.measure`


class Opened(NamedTuple):
    """A decoder whose files are complete, and what it is called."""

    name: str
    checkpoint: Checkpoint
    config: ModelConfig


@by_name(AnalyzeSettings)
def analyze(settings: AnalyzeSettings) -> Analysis:
    """Looks at a model; see `AnalyzeSettings`.

    Returns:
      What was found; the files in the output folder say the same.

    Raises:
      InputError: bad input, found before anything is measured; an encoder-decoder, or a family without a forward pass;
        a base that the model was not grown from.
    """
    started, tokens = time.monotonic(), check_settings(settings)
    folder = demo.MODEL_DIRECTORY if settings.model is None else resolve_model(settings.model, settings.revision)
    check_output(settings.output, folder, settings.overwrite, nbytes=0)  # its files are small
    model = open_decoder(folder, "the demo model" if settings.model is None else Path(settings.model).name)
    plan = read_growth(folder, model.config.num_layers).plan if (folder / GROWTH_FILE).exists() else None
    base = None if settings.base is None else open_base(settings.base, plan, model)
    text = demo.evaluation_text() if settings.text is None else read_text("--text", settings.text)
    rows = sample_rows(folder, text, model.config, tokens)
    check_rows(rows)
    if base is not None:
        check_apart(settings.output, base.checkpoint.folder)
    with claim(settings.output), progress_bars() as progress:
        looked_at = [one for one in (base, model) if one is not None]
        layers = progress.add_task("layers", total=STEPS * sum(one.config.num_layers for one in looked_at), note="")
        kinds = progress.add_task("weight kinds", total=sum(map(count_kinds, looked_at)), note="")

        def look(one: Opened, plan: Plan | None, base: Analysis | None, since: float) -> Analysis:
            measured = measure(one.checkpoint, one.config, rows, lambda done: progress.advance(layers, done))
            if not np.isfinite([layer.shortcut_loss for layer in measured.layers]).all():
                raise InputError(f"{one.name}: its loss on this text is not a number; its weights are damaged")
            weights = measure_weights(
                one.checkpoint, one.config.num_layers, lambda kind: progress.update(kinds, advance=1, note=kind)
            )
            source = "the demo text" if settings.text is None else settings.text.name
            return Analysis(one.name, source, rows.size, plan, measured, weights, time.monotonic() - since, base)

        beside = None if base is None else look(base, None, None, time.monotonic())
        found = look(model, plan, beside, started)
        with publish(settings.output, settings.overwrite) as hidden:
            write_files(found, hidden)
    return found


def open_decoder(folder: Path, name: str) -> Opened:
    """Refuses what is no complete decoder, or has no forward pass here."""
    checkpoint = open_checkpoint(folder)
    config = read_model(checkpoint)
    if config.encoder is not None:
        raise InputError(f"{config.model_type}: is an encoder-decoder; analyze looks at decoders alone")
    check_tensors(checkpoint, config)
    return Opened(name, checkpoint, config)


def open_base(base: str, plan: Plan | None, grown: Opened) -> Opened:
    """Refuses another model than the one that was grown."""
    if plan is None:
        raise InputError(f"--base {base}: {grown.name} has no {GROWTH_FILE} that tells of its growth; leave it out")
    opened = open_decoder(resolve_model(base, None), Path(base).name)
    remedy = "name the model that it was grown from"
    if opened.config.num_layers != plan.source_layers:
        raise InputError(
            f"--base {base}: has {opened.config.num_layers} layers, but {grown.name} was grown from "
            f"{plan.source_layers}; {remedy}"
        )
    for word, entry in (("hidden size", "hidden_size"), ("vocabulary", "vocab_size")):
        here, there = (getattr(one.config, entry) for one in (opened, grown))
        if here != there:
            raise InputError(f"--base {base}: its {word} is {here}, that of {grown.name} is {there}; {remedy}")
    return opened


def check_rows(rows: Int[np.ndarray, "rows tokens"]) -> None:
    """Refuses a text, or positions of a model, too short for effects on later tokens."""
    if rows.shape[1] <= FIRST + LAST or rows.size < FEWEST:
        raise InputError(
            f"--text: only {rows.size} tokens in rows of {rows.shape[1]}; expected at least {FEWEST} in rows of more "
            f"than {FIRST + LAST}: give a longer text, or a model with more positions"
        )


def count_kinds(one: Opened) -> int:
    return len(list(kinds_of(one.checkpoint, one.config.num_layers)))


def write_files(found: Analysis, folder: Path) -> None:
    """All that an analysis leaves; a plan only where there is one."""
    write_json(folder / ANALYSIS, found.to_json())
    if found.recommended is not None:
        write_json(folder / PLAN, found.recommended.to_json())
    draw_panels(text_panels(found), folder / LAYERS_PNG)
    if panels := weight_panels(found):
        draw_panels(panels, folder / MATRICES_PNG)
    write_text(folder / REPORT, page(found))
