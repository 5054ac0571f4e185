"""A comparison on the terminal."""

from rich.console import Console
from rich.table import Table

from lesa_jax.comparison.statistics import Statistics
from lesa_jax.comparison.table import markdown, ordered, split_columns
from lesa_jax.comparison.verdict import notes, summary, verdict


def print_table(statistics: Statistics, console: Console) -> None:
    """What was compared, the verdict, and the columns in which rows differ; off a terminal all of table.md."""
    if not console.is_terminal:
        print(markdown(statistics))
        return
    table = Table()
    columns = [column for column in split_columns(statistics)[0] if column.brief]
    for column in columns:
        table.add_column(column.heading, justify="left" if column.word else "right", overflow="fold")
    for row in ordered(statistics):
        table.add_row(*(column.text(row) for column in columns), style="bold" if row.method == "base" else None)
    console.print(summary(statistics), verdict(statistics), *notes(statistics), sep="\n\n", end="\n\n")
    console.print(table)
    for row in statistics.rows:
        if row.error:
            console.print(f"{row.name} ({row.placement}): {row.error}", soft_wrap=True)
