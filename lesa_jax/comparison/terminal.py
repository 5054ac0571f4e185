"""A comparison on the terminal."""

from rich.console import Console
from rich.table import Table

from lesa_jax.comparison.statistics import Statistics
from lesa_jax.comparison.table import Column, markdown, ordered, shown
from lesa_jax.comparison.verdict import notes, summary, verdict


def print_table(statistics: Statistics, console: Console) -> None:
    """What was compared, the verdict, and the columns in which rows differ; off a terminal all of table.md."""
    if not console.is_terminal:
        print(markdown(statistics))
        return
    table = Table()
    columns = telling(statistics)
    for column in columns:
        table.add_column(column.heading, justify="left" if column.word else "right", overflow="fold")
    for row in ordered(statistics):
        table.add_row(*(column.text(row) for column in columns), style="bold" if row.method == "base" else None)
    console.print(summary(statistics), verdict(statistics), *notes(statistics), sep="\n\n", end="\n\n")
    console.print(table)
    for row in statistics.rows:
        if row.error:
            console.print(f"{row.name} ({row.placement}): {row.error}", soft_wrap=True)


def telling(statistics: Statistics) -> list[Column]:
    """The brief columns that say something: not the same of all grown models."""
    grown = [row for row in statistics.rows if row.method != "base"]

    def tells(column: Column) -> bool:
        return column.key in ("name", "initial_perplexity") or len({column.text(row) for row in grown}) > 1

    return [column for column in shown(statistics) if column.brief and tells(column)]
