"""The words of a comparison: its verdict, the columns of its table, and table.md."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lesa_jax.comparison_report import (
    ROUNDING,
    Comparison,
    Row,
    base_loss,
    is_trained,
    labels,
    perplexity,
    rows,
    scale,
)
from lesa_jax.run_log import duration, short


def verdict(comparison: Comparison) -> str:
    """What the numbers say in a few sentences, and what they do not say."""
    named = list(zip(labels(comparison), rows(comparison), strict=True))
    base = named[0][1]["initial_perplexity"]
    sentences = []
    starts = [(name, row) for name, row in named[1:] if row["initial_perplexity"] is not None]
    if not starts:
        sentences.append("No grown model was measured.")
    else:
        lowest, close, value = leaders(starts, "initial_perplexity", "initial_sd")
        text = (
            f"Before training, {join(lowest)} {'starts' if len(lowest) == 1 else 'start'} lowest, at perplexity {value}"
        )
        if base is not None:
            below = [name for name, row in starts if row["initial_perplexity"] < base * (1 - ROUNDING)]
            text += (
                f" (base: {number(base)}); {join(below) or 'none'} {'start' if len(below) > 1 else 'starts'} below base"
            )
        sentences.append(text + within(close) + ".")
    ends = [(name, row) for name, row in named if row["perplexity"] is not None]
    if ends:
        lowest, close, value = leaders(ends, "perplexity", "perplexity_sd")
        tokens = {row["tokens"] for _, row in ends}
        after = f"After {short(max(tokens))} tokens" if len(tokens) == 1 else "At the end"
        text = f"{after}, {join(lowest)} {'is' if len(lowest) == 1 else 'are'} lowest, at {value}"
        grown = [row["perplexity"] for _, row in ends if row is not named[0][1]]
        target = base_loss(comparison)
        if target is not None and grown:
            down = sum(value <= perplexity(target) * (1 + ROUNDING) for value in grown)
            verb = "ends" if down == 1 else "end"
            text += f"; {down} of {len(grown)} grown models {verb} at or below base's initial loss"
        base_end = named[0][1]["perplexity"]
        if base_end is not None and labels(comparison)[0] not in lowest:
            text += f"; base, trained too, ends at {mean_sd(base_end, named[0][1]['perplexity_sd'])}"
        sentences.append(text + within(close) + ".")
        if len(tokens) > 1:
            sentences.append("They were trained on different numbers of tokens: compare them along the curves.")
    if len(comparison.seeds) < 2:
        sentences.append("With one seed there is nothing to tell a difference from chance.")
    failed = sum(outcome.error is not None for outcome in comparison.outcomes)
    if failed:
        sentences.append(f"{failed} of {len(named)} rows failed.")
    return " ".join(sentences)


def leaders(named: Sequence[tuple[str, Row]], key: str, sd_key: str) -> tuple[list[str], list[str], str]:
    """Who is lowest, who is within one standard deviation (the larger of the two) of that, and the lowest value."""
    best = min((row for _, row in named), key=lambda row: row[key])
    lowest = [name for name, row in named if row[key] <= best[key] * (1 + ROUNDING)]
    close = [
        name
        for name, row in named
        if name not in lowest and row[key] - best[key] <= max(row[sd_key] or 0.0, best[sd_key] or 0.0)
    ]
    return lowest, close, mean_sd(best[key], best[sd_key])


def within(close: Sequence[str]) -> str:
    if not close:
        return ""
    return f"; {join(close)} {'is' if len(close) == 1 else 'are'} within one standard deviation of the lowest"


def join(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def number(value: float, mean: float | None = None) -> str:
    """A perplexity, or the standard deviation that belongs to a mean, with as many decimals as the mean has."""
    size = value if mean is None else mean
    return f"{value:.2f}" if size < 1e3 else f"{value:.0f}" if size < 1e5 else f"{value:.3g}"


def mean_sd(mean: float | None, sd: float | None) -> str:
    return "-" if mean is None else number(mean) if sd is None else f"{number(mean)} +- {number(sd, mean)}"


def amount(value: float, name: str) -> str:
    """1.5e12 flops as 1.5 TFLOP."""
    if not value:
        return "0"
    if name == "seconds":
        return f"{value:.1f} s" if value < 60 else duration(value)
    if name == "tokens":
        return short(float(f"{value:.3g}"))
    divisor, unit = scale(value, name)
    return f"{value / divisor:.3g} {unit}"


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


def summary(comparison: Comparison) -> str:
    """What was measured, in a sentence."""
    seeds = ", ".join(map(str, comparison.seeds))
    text = f"{comparison.model}: {comparison.protocol} perplexity on {comparison.text}, "
    noun = "seed" if len(comparison.seeds) == 1 else "seeds"
    text += f"at most {comparison.sequence_length} tokens at once, {noun} {seeds}"
    if not is_trained(comparison):
        return text + "; nothing was trained."
    tokens = "" if comparison.train_tokens is None else f"{short(comparison.train_tokens)} tokens of "
    return text + f"; trained: {comparison.trained}, on {tokens}{comparison.train_data}."


def escape(text: str) -> str:
    """Text as it is in a Markdown table's cell: on one line, and without a meaning of its own."""
    return re.sub(r"([\\|*`\[\]])", r"\\\1", " ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
