"""The words of a comparison: its verdict, the columns of its table, and table.md."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lesa_jax.comparison.result import Comparison, Row
from lesa_jax.comparison.statistics import rows
from lesa_jax.comparison.verdict import summary, verdict
from lesa_jax.reports.charts import amount, mean_sd


@dataclass(frozen=True)
class Column:
    """A column of the tables for people.

    Attributes:
      heading: short.
      meaning: for the glossary.
      key: of the row, to sort by.
      text: of the row's cell.
      brief: whether table.md has it too.
    """

    heading: str
    meaning: str
    key: str
    text: Callable[[Row], str]
    brief: bool = True


def reached_text(key: str, name: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        if row["tokens"] is None or row["method"] == "base":
            return "-"
        return "not reached" if row[key] is None else amount(row[key], name)

    return text


def step_text(row: Row) -> str:
    if row["step_flops"] is None:
        return "-"
    ratio = row.get("step_cost_over_base")
    return amount(row["step_flops"], "flops") + (f" ({ratio:.2f} x)" if ratio is not None else "")


def initial_text(row: Row) -> str:
    return mean_sd(row["initial_perplexity"], row["initial_sd"])


COLUMNS = (
    Column("method", "How the new layers were made; base is the original model.", "method", lambda row: row["method"]),
    Column("placement", "Where the new layers are.", "placement", lambda row: row["placement"]),
    Column("layers", "Layers of the model, new ones included.", "layers", lambda row: str(row["layers"])),
    Column("parameters", "Of the whole model.", "parameters", lambda row: f"{row['parameters']:,}"),
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
        lambda row: "-" if row["initial_over_base"] is None else f"{row['initial_over_base']:.3f}",
        False,
    ),
    Column(
        "after training",
        "Exponential of the held-out loss per token at the last evaluation that all seeds have, mean and standard "
        "deviation over seeds. Where the protocol is line, it does not compare with the initial perplexity.",
        "perplexity",
        lambda row: mean_sd(row["perplexity"], row["perplexity_sd"]),
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
        lambda row: "-" if row["backward_depth"] is None else str(row["backward_depth"]),
    ),
)


def ordered(table: Sequence[Row]) -> list[Row]:
    """The rows that something is wrong with last."""
    return sorted(table, key=lambda row: row["error"] is not None)


def shown(column: Column, table: Sequence[Row]) -> bool:
    """Columns about training are left out where nothing was trained."""
    return column.text is initial_text or any(column.text(row) != "-" for row in table)


def markdown(comparison: Comparison) -> str:
    """table.md: what was compared, the verdict, the table."""
    table = ordered(rows(comparison))
    columns = [column for column in COLUMNS if column.brief]
    lines = [[column.heading for column in columns], ["---"] * len(columns)]
    lines += [[escape(column.text(row)) for column in columns] for row in table]
    if any(row["error"] for row in table):
        lines[0].append("error")
        lines[1].append("---")
        for cells, row in zip(lines[2:], table, strict=True):
            cells.append(escape(row["error"] or ""))
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{escape(summary(comparison))}\n\n{escape(verdict(comparison))}\n\n{body}\n"


def escape(text: str) -> str:
    """Text as it is in a Markdown table's cell: on one line, and without a meaning of its own."""
    return re.sub(r"([\\|*`\[\]])", r"\\\1", " ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
