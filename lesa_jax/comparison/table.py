"""The table of a comparison: for programs as table.json, for people as columns, which table.md shows too."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from lesa_jax.comparison.statistics import Row, Statistics
from lesa_jax.comparison.verdict import summary, verdict
from lesa_jax.reports.numbers import amount, mean_sd


def records(statistics: Statistics) -> list[dict[str, Any]]:
    """The rows of table.json."""
    left_out = set() if statistics.rows[0].step_cost_over_base else {"step_cost_over_base"}
    return [{key: value for key, value in asdict(row).items() if key not in left_out} for row in statistics.rows]


@dataclass(frozen=True)
class Column:
    """A column of the tables for people.

    Attributes:
      heading: short.
      meaning: for the glossary.
      key: of the row, to sort by.
      text: of the row's cell.
      brief: whether table.md has it too.
      word: whether its cells are words, not numbers.
    """

    heading: str
    meaning: str
    key: str
    text: Callable[[Row], str]
    brief: bool = True
    word: bool = False


def reached_text(key: str, name: str) -> Callable[[Row], str]:
    """Of the tokens, flops or seconds (`name`) in the row's attribute `key`."""

    def text(row: Row) -> str:
        if row.tokens is None or row.method == "base":
            return "-"
        reached = getattr(row, key)
        return "not reached" if reached is None else amount(reached, name)

    return text


def step_text(row: Row) -> str:
    if row.step_flops is None:
        return "-"
    ratio = row.step_cost_over_base
    return amount(row.step_flops, "flops") + (f" ({ratio:.2f} x)" if ratio is not None else "")


def initial_text(row: Row) -> str:
    return mean_sd(row.initial_perplexity, row.initial_sd)


COLUMNS = (
    Column(
        "method",
        "How the new layers were made; base is the original model.",
        "method",
        lambda row: row.method,
        word=True,
    ),
    Column("placement", "Where the new layers are.", "placement", lambda row: row.placement, word=True),
    Column("layers", "Layers of the model, new ones included.", "layers", lambda row: str(row.layers)),
    Column("parameters", "Of the whole model.", "parameters", lambda row: f"{row.parameters:,}"),
    Column(
        "initial perplexity",
        "On the held-out text before any training. Mean and sample standard deviation over seeds; a method without "
        "randomness has one value. Lower is better.",
        "initial_perplexity",
        initial_text,
    ),
    Column(
        "against base",
        "Initial perplexity divided by base's.",
        "initial_over_base",
        lambda row: "-" if row.initial_over_base is None else f"{row.initial_over_base:.3f}",
        False,
    ),
    Column(
        "after training",
        "Exponential of the held-out loss per token at the last evaluation that all seeds have, mean and standard "
        "deviation over seeds. Where the protocol is line, it does not compare with the initial perplexity.",
        "perplexity",
        lambda row: mean_sd(row.perplexity, row.perplexity_sd),
    ),
    Column(
        "tokens to base",
        "Trained tokens until the mean loss over seeds falls to the loss that base had before training, linear between "
        "evaluations.",
        "tokens_to_base",
        reached_text("tokens_to_base", "tokens"),
    ),
    Column(
        "FLOPs to base",
        "The same in floating-point operations.",
        "flops_to_base",
        reached_text("flops_to_base", "flops"),
    ),
    Column(
        "time to base",
        "The same in wall-clock time on the machine that trained; whatever else ran there counts too.",
        "seconds_to_base",
        reached_text("seconds_to_base", "seconds"),
        False,
    ),
    Column(
        "step cost",
        "Operations for one trained token, forward and backward; in brackets against base, if it was trained.",
        "step_flops",
        step_text,
    ),
    Column(
        "backward depth",
        "Layers that the backward pass goes through: those above the lowest trained one.",
        "backward_depth",
        lambda row: "-" if row.backward_depth is None else str(row.backward_depth),
    ),
)


def ordered(statistics: Statistics) -> list[Row]:
    """The rows that something is wrong with last."""
    return sorted(statistics.rows, key=lambda row: row.error is not None)


def shown(statistics: Statistics) -> list[Column]:
    """Columns about training are left out where nothing was trained."""
    return [c for c in COLUMNS if c.text is initial_text or any(c.text(row) != "-" for row in statistics.rows)]


def markdown(statistics: Statistics) -> str:
    """table.md: what was compared, the verdict, the table."""
    rows = ordered(statistics)
    columns = [(column.heading, column.text) for column in COLUMNS if column.brief]
    if any(row.error for row in rows):
        columns.append(("error", lambda row: row.error or ""))
    lines = [[heading for heading, _ in columns], ["---"] * len(columns)]
    lines += [[escape(text(row)) for _, text in columns] for row in rows]
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{escape(summary(statistics))}\n\n{escape(verdict(statistics))}\n\n{body}\n"


def escape(text: str) -> str:
    """Text as it is in a Markdown table's cell: on one line, and without a meaning of its own."""
    return re.sub(r"([\\|*`\[\]])", r"\\\1", " ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
