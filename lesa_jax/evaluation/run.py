"""Perplexity of a checkpoint on a text, from its settings to its result.

Computes in float32, on accelerators at full matrix precision, from weights kept in their stored dtype.
"""

import json
import math
import time
from typing import Any

from lesa_jax import demo
from lesa_jax.base.console import progress_bars
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_text
from lesa_jax.base.settings import by_name
from lesa_jax.checkpoint.hub import resolve_model
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.checkpoint.tokenizer import load_tokenizer
from lesa_jax.evaluation.looping import in_order, loop_order
from lesa_jax.evaluation.perplexity import model_nll, perplexity_of
from lesa_jax.evaluation.protocol import token_rows
from lesa_jax.evaluation.settings import EvaluateSettings
from lesa_jax.evaluation.targets import model_pair_nll, target_pairs, target_perplexity
from lesa_jax.models.config import read_model
from lesa_jax.models.load import load_model


@by_name(EvaluateSettings)
def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Perplexity of `settings.model` on `settings.text`.

    Returns:
      model, protocol, perplexity, nll (nats per predicted token), tokens (predicted), seconds (loading and compiling
      included); with `settings.loop` also loop and layers (how many run).

    Raises:
      InputError: no such model or text, an architecture without a forward pass here, damaged weights, layers to loop
        that there are not.
    """
    text = demo.evaluation_text() if settings.text is None else read_text("--text", settings.text)
    return evaluate_text(text, settings)


def evaluate_text(text: str, settings: EvaluateSettings) -> dict[str, Any]:
    """`evaluate` on a text that is already at hand; `settings.text` is ignored."""
    started = time.monotonic()
    if settings.batch_size < 1:
        raise InputError(f"--batch-size {settings.batch_size}: expected at least 1")
    folder = resolve_model(demo.named(settings.model), settings.revision)
    order = None if settings.loop is None else loop_order(settings.loop, read_model(open_checkpoint(folder)))
    params, config = load_model(folder)
    if order is not None:
        params, config = in_order(params, config, order)
    protocol, tokenizer = settings.ppl_protocol, load_tokenizer(folder)
    with progress_bars() as progress:
        task = progress.add_task("perplexity", total=None, note="")

        def advance(done: int) -> None:
            progress.advance(task, done)

        if config.encoder is None:
            rows = token_rows(tokenizer, text, protocol, config, settings.sequence_length)
            progress.update(task, total=len(rows))
            measured = perplexity_of(model_nll(params, config), rows, protocol, settings.batch_size, advance)
        else:
            pairs = target_pairs(tokenizer, text, protocol, config, settings.sequence_length)
            progress.update(task, total=len(pairs))
            measured = target_perplexity(model_pair_nll(params, config), pairs, protocol, settings.batch_size, advance)
    return {
        "model": settings.model or "demo",
        "protocol": settings.ppl_protocol,
        "perplexity": measured.perplexity,
        "nll": measured.nll,
        "tokens": measured.tokens,
        "seconds": round(time.monotonic() - started, 3),
    } | ({} if settings.loop is None else {"loop": settings.loop, "layers": config.num_layers})


def show(result: dict[str, Any]) -> None:
    """One JSON object on stdout; JSON has no infinity, so an overflowing perplexity is null."""
    finite = {key: None if isinstance(value, float) and math.isinf(value) else value for key, value in result.items()}
    print(json.dumps(finite))
