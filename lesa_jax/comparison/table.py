"""The table of a comparison: for programs as table.json, for people as columns, which table.md shows too."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lesa_jax.comparison.chance import Difference, SignTest
from lesa_jax.comparison.rows import Row
from lesa_jax.comparison.score_table import score_heads, score_lines, score_meanings, score_note, score_record
from lesa_jax.comparison.statistics import Statistics
from lesa_jax.comparison.verdict import notes, summary, verdict
from lesa_jax.reports.numbers import amount, mean_sd, number


def records(statistics: Statistics) -> list[dict[str, Any]]:
    """The rows of table.json."""
    left_out = set() if statistics.rows[0].step_cost_over_base else {"step_cost_over_base"}
    return [
        {key: value for key, value in asdict(row).items() if key not in left_out}
        | {"differences": told(found)}
        | score_record(statistics.tasks, position)
        for position, (row, found) in enumerate(zip(statistics.rows, statistics.differences, strict=True))
    ]


def told(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """Of one row, in table.json."""

    def test(found: SignTest | None) -> dict[str, Any] | None:
        return None if found is None else found._asdict()

    return [asdict(one) | {"windows": test(one.windows), "seeds": test(one.seeds)} for one in differences]


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
        if reached is None:
            return "not reached"
        return amount(reached, name) if reached else "0 (starts there)"

    return text


def to_trained_text(key: str, name: str) -> Callable[[Row], str]:
    """The same on the way to base's loss after its own training, where that is known."""
    text = reached_text(key, name)
    return lambda row: "-" if row.over_trained_base is None else text(row)


def ratio_text(key: str) -> Callable[[Row], str]:
    """Of a quotient of two perplexities in the row's attribute `key`."""
    return lambda row: "-" if (ratio := getattr(row, key)) is None else f"{ratio:.4f}"


def sweep_text(row: Row) -> str:
    if row.sweep_tokens is None or row.sweep_seconds is None:
        return "-"
    flops = "" if row.sweep_flops is None else f", {amount(row.sweep_flops, 'flops')}"
    return f"{amount(row.sweep_tokens, 'tokens')} tokens{flops}, {amount(row.sweep_seconds, 'seconds')}"


def step_text(row: Row) -> str:
    if row.step_flops is None:
        return "-"
    ratio = row.step_cost_over_base
    return amount(row.step_flops, "flops") + (f" ({ratio:.2f} x)" if ratio is not None else "")


def initial_text(row: Row) -> str:
    return mean_sd(row.initial_perplexity, row.initial_sd)


def best_text(row: Row) -> str:
    if row.over_best is None:
        return "-"
    return "not reached" if row.flops_to_best is None else amount(row.flops_to_best, "flops")


def interval_text(low: float, high: float | None) -> str:
    return "-" if high is None else f"{number(low)} to {number(high)}"


def retained_text(row: Row) -> str:
    ratio = "" if row.retained_over_base is None else f" ({row.retained_over_base:.3f} x)"
    return mean_sd(row.retained, row.retained_sd) + ratio


COLUMNS = (
    Column(
        "method",
        "How the new layers were made; base is the original model. Names with = between them are one model. Rows named "
        "identity are controls, silenced copies: where and trained as other rows are, or as the one they name.",
        "name",
        lambda row: row.name,
        word=True,
    ),
    Column(
        "after training",
        "Exponential of the held-out loss per token at the last evaluation that all seeds have, mean and standard "
        "deviation over seeds. Where the protocol is line, it does not compare with the initial perplexity.",
        "perplexity",
        lambda row: mean_sd(row.perplexity, row.perplexity_sd),
    ),
    Column(
        "95 % of seeds",
        "Student's interval of that mean, of three seeds or more.",
        "perplexity_low",
        lambda row: "-" if row.perplexity_low is None else interval_text(row.perplexity_low, row.perplexity_high),
    ),
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
        "what was known",
        "Exponential of the loss per token on --retain-text, after training; in brackets divided by base's before "
        "training: above 1, something was forgotten.",
        "retained",
        retained_text,
    ),
    Column("placement", "Where the new layers are.", "placement", lambda row: row.placement, word=True),
    Column("layers", "Layers of the model, new ones included.", "layers", lambda row: str(row.layers)),
    Column("parameters", "Of the whole model.", "parameters", lambda row: f"{row.parameters:,}"),
    Column(
        "trained",
        "Which weights; of base always everything.",
        "trained",
        lambda row: row.trained or "-",
        word=True,
    ),
    Column(
        "optimizer",
        "The update rule.",
        "optimizer",
        lambda row: row.optimizer or "-",
        word=True,
    ),
    Column(
        "replay",
        "Share of the trained rows that are from --replay-data.",
        "replay",
        lambda row: "-" if row.replay is None else f"{100 * row.replay:g} %",
    ),
    Column(
        "rate",
        "Learning rate at its peak.",
        "learning_rate",
        lambda row: "-" if row.learning_rate is None else f"{row.learning_rate:g}",
    ),
    Column(
        "control",
        "The row of silenced copies at the same places, which trains the same weights: it differs in what new layers "
        "start as, and in nothing else.",
        "control",
        lambda row: row.control or "-",
        False,
        True,
    ),
    Column(
        "against control",
        "Perplexity after training divided by that control's, of mean losses: below 1, what new layers start as did "
        "good.",
        "over_control",
        ratio_text("over_control"),
    ),
    Column(
        "against trained base",
        "Perplexity after training divided by that of base after as many tokens of its own training, of mean losses.",
        "over_trained_base",
        ratio_text("over_trained_base"),
        False,
    ),
    Column(
        "at equal FLOPs",
        "The same where both have spent as many operations as the cheaper one has in all. The other one's curve is "
        "read before its rate has fallen to its end.",
        "over_trained_base_flops",
        ratio_text("over_trained_base_flops"),
    ),
    Column(
        "tokens to base",
        "Trained tokens until the mean loss over seeds falls to the loss that base had before training, linear between "
        "evaluations. 0 by construction where new layers are silent, for the model starts there: it says nothing of "
        "such rows.",
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
        "tokens to trained base",
        "Trained tokens until the mean loss falls to the loss that base has at the end of its own training on as many "
        "tokens.",
        "tokens_to_trained_base",
        to_trained_text("tokens_to_trained_base", "tokens"),
    ),
    Column(
        "FLOPs to trained base",
        "The same in floating-point operations.",
        "flops_to_trained_base",
        to_trained_text("flops_to_trained_base", "flops"),
        False,
    ),
    Column(
        "time to trained base",
        "The same in wall-clock time.",
        "seconds_to_trained_base",
        to_trained_text("seconds_to_trained_base", "seconds"),
        False,
    ),
    Column(
        "FLOPs to best rival",
        "Operations until the mean loss falls to that at which the best other row ends; controls are none, and of the "
        "original model trained in several ways the first, which has columns of its own.",
        "flops_to_best",
        best_text,
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
    Column(
        "cost of rate",
        "Trained tokens, operations and wall-clock time, compilation and measuring included, of the short runs that "
        "chose the rate. In no other column.",
        "sweep_tokens",
        sweep_text,
        False,
    ),
)


# Heading: meaning, of the table of differences.
CHANCE_HEADINGS = {
    "method": "The row.",
    "held against": "Which other row, and what it is to this one.",
    "nats above it": "Held-out loss at the end minus the other row's, mean over seeds; below 0 this row is better.",
    "95 % over windows": "Bootstrap interval of that: what other text of the kind may show of the same trained models.",
    "windows lower": "In how many windows of the held-out text this row's loss, a mean over seeds, is lower; of those "
    "that differ. In brackets an exact two-sided sign test.",
    "seeds lower": "The same of seeds: what another order of the data may show.",
    "chance": "Whether a difference may be chance: windows leave it open (p above 0.05, or 0 inside the interval), or "
    "seeds do as far as so many of them could say otherwise.",
}


def chance_lines(statistics: Statistics) -> list[list[tuple[str, object]]]:
    """The table of differences: texts, and what they are sorted by."""
    return [
        [
            (label, label),
            (f"{one.against}: {one.other}", one.against),
            (f"{one.loss:+.4f}", one.loss),
            ("-" if one.low is None or one.high is None else f"{one.low:+.4f} to {one.high:+.4f}", one.low),
            (count_text(one.windows), one.windows and one.windows.p),
            (count_text(one.seeds), one.seeds.p),
            ("may be" if one.may_be_chance else "hardly", one.may_be_chance),
        ]
        for label, differences in zip(statistics.labels, statistics.differences, strict=True)
        for one in differences
    ]


def count_text(test: SignTest | None) -> str:
    return "-" if test is None else f"{test.lower} of {test.of} (p = {test.p:.2g})"


def ordered(statistics: Statistics) -> list[Row]:
    """The best first, by the end of training where there was one, as pictures and legends have them; the rows that
    something is wrong with last."""

    def place(row: Row) -> tuple[bool, float, float]:
        end, start = (
            math.inf if value is None else round(value, 4) for value in (row.perplexity, row.initial_perplexity)
        )
        return row.error is not None, end, start

    return sorted(statistics.rows, key=place)


def shown(statistics: Statistics) -> list[Column]:
    """Columns about training are left out where nothing was trained."""
    return [c for c in COLUMNS if c.text is initial_text or any(c.text(row) != "-" for row in statistics.rows)]


def split_columns(statistics: Statistics) -> tuple[list[Column], list[Column]]:
    """The columns in which grown models differ, and those that say the same of all, if there are several."""
    grown = [row for row in statistics.rows if row.method != "base"]

    def tells(column: Column) -> bool:
        always = column.key in ("name", "perplexity", "initial_perplexity")
        return always or len(grown) < 2 or len({column.text(row) for row in grown}) > 1

    columns = shown(statistics)
    return [c for c in columns if tells(c)], [c for c in columns if not tells(c)]


def markdown(statistics: Statistics) -> str:
    """table.md: what was compared, the verdict, the table."""
    rows = ordered(statistics)
    columns = [(column.heading, column.text) for column in shown(statistics) if column.brief]
    if any(row.error for row in rows):
        columns.append(("error", lambda row: row.error or ""))
    lines = [[heading for heading, _ in columns], ["---"] * len(columns)]
    lines += [[escape(text(row)) for _, text in columns] for row in rows]
    said = [summary(statistics), verdict(statistics), " ".join(notes(statistics))]
    parts = [*(escape(text) for text in said if text), table_text(lines), *score_text(statistics)]
    return "\n\n".join([*parts, *chance_text(statistics)]) + "\n"


def score_text(statistics: Statistics) -> list[str]:
    """The table of scores on tasks and what stands in it, if there are any."""
    if not statistics.tasks:
        return []
    heads = score_heads(statistics)
    lines = [[escape(text) for text, _ in line] for line in score_lines(statistics)]
    told = [f"{heading}: {text}" for heading, text in score_meanings(statistics)]
    return [
        table_text([[escape(head) for head in heads], ["---"] * len(heads), *lines]),
        escape(" ".join([score_note(statistics), *told])),
    ]


def chance_text(statistics: Statistics) -> list[str]:
    """The table of differences, if there are any."""
    lines = chance_lines(statistics)
    if not lines:
        return []
    heads = [[*CHANCE_HEADINGS], ["---"] * len(CHANCE_HEADINGS)]
    return [table_text(heads + [[escape(text) for text, _ in line] for line in lines])]


def table_text(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def escape(text: str) -> str:
    """Text as it is in a Markdown table's cell: on one line, and without a meaning of its own."""
    return re.sub(r"([\\|*`\[\]])", r"\\\1", " ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
