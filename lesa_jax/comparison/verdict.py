"""What a comparison says, in sentences."""

from collections.abc import Sequence

from lesa_jax.base.units import short
from lesa_jax.comparison.result import Comparison, Row
from lesa_jax.comparison.statistics import ROUNDING, base_loss, is_trained, labels, perplexity, rows
from lesa_jax.reports.charts import mean_sd, number


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
