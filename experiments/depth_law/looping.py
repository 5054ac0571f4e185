"""What running a block of layers again at inference is worth, for every block of a size, in a model as it is.

Command:   python experiments/depth_law/looping.py
           python experiments/depth_law/looping.py --model books16 --text books-val.txt
           For the grown models see the end of this text; --name says what the files of a run are called.
Run time:  6 minutes for the demo model, 8 for it grown, 30 for books16, each on a core that had other work, too.
Expected:  experiments/results/looping_NAME.csv and .md; the verdict is in experiments/README.md.

Grown models gain on some tasks when their middle block of four layers runs twice or three times at inference, though
they were never trained to; more loops hurt (arXiv 2512.08819, 2602.16490). Here perplexity is asked, of the whole
windows of a text, and of every block, so that one sees where in depth a model bears it. Changes are of the mean loss
against the model as it is, with the standard error over windows.

The grown model of the README: the demo model with silent copies, everything trained, and beside it the demo model
trained on the same tokens (corpus.txt is the source text that it was made from, `demo.training_texts()`).

    lesa expand --output grown
    lesa train --model grown --data corpus.txt --train all --new-rate 16 --tokens 100k --sequence-length 256 \\
        --batch-size 4 --output run
    python experiments/depth_law/looping.py --model run/final --name demo_grown
"""

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro

from lesa_jax import demo
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_text, write_text
from lesa_jax.checkpoint.hub import resolve_model
from lesa_jax.checkpoint.tokenizer import load_tokenizer
from lesa_jax.evaluation.looping import in_order, looped
from lesa_jax.evaluation.perplexity import Perplexity, model_nll, perplexity_of
from lesa_jax.evaluation.protocol import token_rows
from lesa_jax.models.load import load_model


@dataclass(frozen=True)
class Settings:
    """Which model, text and blocks."""

    model: str | None = None
    """Folder or hub id; by default the demo model."""
    name: str | None = None
    """What the files are called; by default the model's folder."""
    text: Path | None = None
    """By default the demo model's."""
    characters: int = 60_000
    """Of the text's beginning."""
    size: int = 4
    """Layers of a block."""
    times: int = 4
    """How often it runs at most."""
    sequence_length: int = 256
    results: Path = Path("experiments/results")


@dataclass(frozen=True)
class Row:
    """One block run so often; `change` is that of the loss against once, nats a token, `error` its standard error."""

    first: int
    last: int
    times: int
    perplexity: float
    change: float
    error: float


def main(settings: Settings) -> None:
    started = time.monotonic()
    folder = demo.MODEL_DIRECTORY if settings.model is None else resolve_model(settings.model, None)
    text = demo.evaluation_text() if settings.text is None else read_text("--text", settings.text)
    params, config = load_model(folder)
    if not 1 <= settings.size <= config.num_layers or settings.times < 2 or config.encoder is not None:
        raise InputError(f"--size 1 to {config.num_layers}, --times 2 or more, of a decoder")
    tokens = token_rows(load_tokenizer(folder), text[: settings.characters], "corpus", config, settings.sequence_length)
    windows = [row for row in tokens if len(row) == len(tokens[0])]

    def measure(block: range, times: int) -> Perplexity:
        tree, of_loop = in_order(params, config, looped(config.num_layers, block, times))
        return perplexity_of(model_nll(tree, of_loop), windows, "corpus", 8)

    whole = measure(range(1), 1)
    blocks = [range(first, first + settings.size) for first in range(config.num_layers - settings.size + 1)]
    rows = []
    for times in range(2, settings.times + 1):
        rows += [row_of(block, times, measure(block, times), whole) for block in blocks]
        print(f"{times} times: {time.monotonic() - started:.0f} s", flush=True)
    name = settings.name or ("demo" if settings.model is None else folder.name)
    write_text(settings.results / f"looping_{name}.csv", as_csv(rows))
    told = f"{name}, {config.num_layers} layers; {len(windows)} windows of {settings.sequence_length} tokens"
    write_text(settings.results / f"looping_{name}.md", as_markdown(told, whole, rows))


def row_of(block: range, times: int, found: Perplexity, whole: Perplexity) -> Row:
    """Of windows of one length, so that the mean of their losses is the text's."""
    changes = np.array([a.nll - b.nll for a, b in zip(found.windows, whole.windows, strict=True)])
    error = float(changes.std(ddof=1) / len(changes) ** 0.5) if len(changes) > 1 else 0.0
    return Row(block[0], block[-1], times, found.perplexity, float(changes.mean()), error)


def as_csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(asdict(rows[0])), lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) | {"perplexity": f"{row.perplexity:.4f}", "change": f"{row.change:.5f}",
                                   "error": f"{row.error:.5f}"} for row in rows)  # fmt: skip
    return text.getvalue()


def as_markdown(told: str, whole: Perplexity, rows: Sequence[Row]) -> str:
    """A line for each block, a column for each number of times."""
    times = sorted({row.times for row in rows})
    lines = [
        f"{told}. Once, the model as it is: perplexity {whole.perplexity:.2f}. Change of the loss, nats a token.",
        "",
        "| layers | " + " | ".join(f"x{number}: perplexity | change" for number in times) + " |",
        "|---" * (1 + 2 * len(times)) + "|",
    ]
    for first in sorted({row.first for row in rows}):
        own = sorted((row for row in rows if row.first == first), key=lambda row: row.times)
        cells = [f"{row.perplexity:.2f} | {row.change:+.3f} +- {row.error:.3f}" for row in own]
        lines.append(f"| {own[0].first}-{own[0].last} | {' | '.join(cells)} |")
    best = min(rows, key=lambda row: row.change)
    better = sum(row.change + 2 * row.error < 0 for row in rows)
    lines += [
        "",
        f"Best: layers {best.first} to {best.last}, {best.times} times, {best.change:+.4f} +- {best.error:.4f}. Better "
        f"than once by more than two standard errors: {better} of {len(rows)}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
