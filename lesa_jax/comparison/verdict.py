"""What a comparison says, in sentences."""

import math
from collections.abc import Iterable, Iterator, Sequence

from lesa_jax.base.units import short
from lesa_jax.comparison.chance import LEVEL, least_p
from lesa_jax.comparison.curves import ROUNDING, perplexity
from lesa_jax.comparison.frontier import WHOLE, Equal, Spot
from lesa_jax.comparison.result import ShortRun
from lesa_jax.comparison.scores import APART, task_verdict
from lesa_jax.comparison.statistics import Lowest, Statistics
from lesa_jax.comparison.variants import ORIGINALS
from lesa_jax.reports.numbers import UNITS, amount, mean_sd, number


def summary(statistics: Statistics) -> str:
    """What was measured, in a sentence."""
    comparison = statistics.comparison
    seeds = ", ".join(map(str, comparison.seeds))
    text = f"{comparison.model}: {comparison.protocol} perplexity on {comparison.text}, "
    noun = "seed" if len(comparison.seeds) == 1 else "seeds"
    text += f"at most {comparison.sequence_length} tokens at once, {noun} {seeds}"
    if not statistics.is_trained:
        return text + "; nothing was trained."
    tokens = "" if comparison.train_tokens is None else f"{short(comparison.train_tokens)} tokens of "
    return text + f"; trained: {comparison.trained}, on {tokens}{comparison.train_data}."


def verdict(statistics: Statistics) -> str:
    """What the numbers say in a few sentences, and what they do not say."""
    comparison = statistics.comparison
    tokens = {row.tokens for row in statistics.rows if row.perplexity is not None and row.tokens is not None}
    sentences = [before_training(statistics)]
    if statistics.lowest_end is not None:
        after = f"After {short(max(tokens))} tokens" if len(tokens) == 1 else "At the end"
        sentences.append(f"{after}, {after_training(statistics, statistics.lowest_end)}")
        sentences += about_chance(statistics, statistics.lowest_end)
    if statistics.frontier:
        names = named(statistics, statistics.frontier)
        verb = "is" if len(names) == 1 else "are"
        sentences.append(f"{join(names)} {verb} on the frontier: no other row learned more and forgot less.")
    sentences += at_equal_forgetting(statistics)
    controlled = sum(row.over_control is not None for row in statistics.rows)
    if controlled:
        below = join(named(statistics, statistics.below_control)) or "none"
        verb = "end" if len(statistics.below_control) > 1 else "ends"
        text = f"Of {controlled} rows with a control (silenced copies there) {below} {verb} below it"
        sentences.append(text + of_them(statistics, statistics.below_control, "control") + ".")
    sentences += about_tasks(statistics)
    waiting = sum(row.perplexity is None and row.error is None for row in statistics.rows)
    if tokens and waiting:
        sentences.append(f"So far: {waiting} of {len(statistics.rows)} rows are still to be trained.")
    if len(tokens) > 1:
        sentences.append("They were trained on different numbers of tokens: compare them along the curves.")
    if len(comparison.seeds) < 2:
        tested = any(one.windows is not None for found in statistics.differences for one in found)
        sentences.append(
            "With one seed nothing tells what another order of the data would have brought."
            if tested
            else "With one seed there is nothing to tell a difference from chance."
        )
    failed = sum(outcome.error is not None for outcome in comparison.outcomes)
    if failed:
        sentences.append(f"{failed} of {len(comparison.outcomes)} rows failed.")
    return " ".join(sentences)


def before_training(statistics: Statistics) -> str:
    lowest, base = statistics.lowest_start, statistics.rows[0].initial_perplexity
    if lowest is None:
        return "No grown model was measured."
    names = named(statistics, lowest.positions)
    text = f"Before training, {join(names)} {'starts' if len(names) == 1 else 'start'} lowest, at perplexity "
    text += mean_sd(lowest.mean, lowest.sd)
    if base is not None:
        below = named(statistics, statistics.below_base)
        verb = "start" if len(below) > 1 else "starts"
        text += f" (base: {number(base)}); {join(below) or 'none'} {verb} below base"
    return text + within(statistics, lowest) + "."


def after_training(statistics: Statistics, lowest: Lowest) -> str:
    """The end of a sentence that begins with when."""
    names = named(statistics, lowest.positions)
    text = f"{join(names)} {'is' if len(names) == 1 else 'are'} lowest, at {mean_sd(lowest.mean, lowest.sd)}"
    base, grown = statistics.rows[0], [row for row in statistics.rows if row.method not in ORIGINALS]
    ended = sum(row.perplexity is not None for row in grown)
    if statistics.base_loss is not None and ended:
        down = len(statistics.at_base)
        verb = "ends" if down == 1 else "end"
        text += f"; {down} of {ended} grown models {verb} at or below base's initial loss"
    if base.perplexity is not None and 0 not in lowest.positions:
        text += f"; base, trained too, ends at {mean_sd(base.perplexity, base.perplexity_sd)}"
    compared = sum(row.over_trained_base is not None for row in grown)
    if compared:
        tokens, flops = len(statistics.at_trained_base), len(statistics.at_trained_base_flops)
        text += f"; {tokens} of {compared} end at or below trained base at equal tokens"
        text += of_them(statistics, statistics.at_trained_base, "trained base")
        text += f", {flops} at equal operations"
    return text + within(statistics, lowest) + "."


def about_chance(statistics: Statistics, lowest: Lowest) -> Iterator[str]:
    """How far the lowest row is from what it is held against, and whether that may be chance."""
    position = lowest.positions[0]
    told = [
        f"{abs(one.loss):.4f} nats {'below' if one.loss < 0 else 'above'} {one.other} ({one.against})"
        f"{', which may be chance' if one.may_be_chance else ''}"
        for one in statistics.differences[position]
    ]
    if told:
        yield f"{statistics.labels[position]} ends {join(told)}."


def at_equal_forgetting(statistics: Statistics) -> Iterator[str]:
    """Which method learns most where it forgets no more than base does, and what that costs."""
    for found in statistics.forgetting.frontiers:
        base = found.base
        if base is None or len(found.methods) < 2:
            continue
        most, where = found.equals[0], f"no more forgetting than {statistics.labels[0]} ({found.title})"
        if most.learned >= base.learned - ROUNDING:
            yield f"At {where} nothing learns more than it."
            continue
        told = " and ".join(spot.label for spot in most.spots if spot.label)
        at = "" if not told else f", between {told}" if len(most.spots) > 1 else f" at {told}"
        chance = " (which may be chance)" if found.title == WHOLE and is_open(statistics, most) else ""
        yield f"At {where} {most.method}{at} learns most: {spent(most)}, where base has {spent(base)}{chance}."


def spent(one: Spot | Equal) -> str:
    cost = f" in {amount(one.flops, 'flops')}" if math.isfinite(one.flops) else ""
    return f"{number(perplexity(one.learned))}{cost}"


def is_open(statistics: Statistics, most: Equal) -> bool:
    """Whether the difference of a row to trained base may be chance; what lies between rows was not trained."""
    return len(most.spots) == 1 and any(
        one.may_be_chance for one in statistics.differences[most.spots[0].position] if one.against == "trained base"
    )


def about_tasks(statistics: Statistics) -> Iterator[str]:
    """Which rows answer better or worse than base, where that is more than two standard errors; else nothing."""
    found, compared = task_verdict(statistics.tasks)
    if not found:
        return
    groups: dict[tuple[str, bool, tuple[str, ...]], list[int]] = {}
    for position, state, better in dict.fromkeys((one.position, one.state, one.better) for one in found):
        tasks = tuple(one.task for one in found if one[:2] == (position, state) and one.better == better)
        groups.setdefault((state, better, tasks), []).append(position)
    told = [
        f"{state} training {join(named(statistics, rows))} {'better' if better else 'worse'} on {join(tasks)}"
        for (state, better, tasks), rows in groups.items()
    ]
    yield (
        f"Of {compared} scores on tasks {len(found)} {'is' if len(found) == 1 else 'are'} more than {APART} standard "
        f"errors from base's at that time, where about one in twenty is by chance: {'; '.join(told)}."
    )


def of_them(statistics: Statistics, positions: Iterable[int], against: str) -> str:
    """In brackets, of which rows the difference to what they are held against may be chance."""
    some = [*positions]
    found = [i for i in some for one in statistics.differences[i] if one.against == against and one.may_be_chance]
    if not found:
        return ""
    return " (which may be chance)" if found == some else f" (of {join(named(statistics, found))} that may be chance)"


def within(statistics: Statistics, lowest: Lowest) -> str:
    close = named(statistics, lowest.close)
    if not close:
        return ""
    return f"; {join(close)} {'is' if len(close) == 1 else 'are'} within one standard deviation of the lowest"


def named(statistics: Statistics, positions: Iterable[int]) -> list[str]:
    return [statistics.labels[i] for i in positions]


def join(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def notes(statistics: Statistics) -> list[str]:
    """What one has to know to read the numbers fairly."""
    found = [*about_rates(statistics)] if statistics.is_trained else []
    found += about_tests(statistics)
    silent = named(statistics, statistics.from_base)
    if silent:
        verb, whose = ("start", "their") if len(silent) > 1 else ("starts", "its")
        found.append(
            f"{join(silent)} {verb} at base's loss, as every model does whose new layers are silent: {whose} way to "
            "base is 0 by construction and tells nothing; the way to trained base does."
        )
    partly: dict[str, list[str]] = {}
    for i, outcome in enumerate(statistics.comparison.outcomes):
        if outcome.published is not None:
            partly.setdefault(outcome.published, []).append(statistics.labels[i])
    for scope, names in partly.items():
        papers = "papers train" if len(names) > 1 else "paper trains"
        found.append(f"The {papers} {scope} of {join(names)}, which is more than here: see --train published.")
    return found


def about_tests(statistics: Statistics) -> Iterator[str]:
    """What tests of differences can tell, and what they cannot."""
    tests = [one for found in statistics.differences for one in found]
    seeds = len(statistics.comparison.seeds)
    if tests and seeds > 1 and (least := least_p(seeds)) > LEVEL:
        yield (
            f"A sign test over {seeds} seeds gives p = {least:g} at best: so few can show that a difference may be "
            "chance, and not that it is none."
        )
    if any(one.windows is not None for one in tests):
        yield (
            "Tests over windows are of these trained models on text of this kind, windows taken as independent: what "
            "another training would bring, seeds tell."
        )


def about_rates(statistics: Statistics) -> Iterator[str]:
    """Which learning rates were used, how they were chosen, and what that cost."""
    rows = [row for row in statistics.rows if row.sweep_tokens]
    if not rows:
        used = sorted({row.learning_rate for row in statistics.rows if row.learning_rate is not None})
        if len(used) == 1:
            yield (
                f"All rows were trained at one rate, {used[0]:g}, which is the best of some and not of others: "
                "--learning-rate sweep gives each its own."
            )
        return
    tokens, flops, seconds = (sum(getattr(row, f"sweep_{name}") or 0 for row in rows) for name in UNITS)
    yield (
        f"Each row has the best of its learning rates, by the held-out loss at the end of short runs of one seed: "
        f"{amount(tokens, 'tokens')} tokens, {amount(flops, 'flops')} and {amount(seconds, 'seconds')} in all, which "
        "no other number here contains. The text that chose the rates is the one that is reported, a small leak."
    )
    ends = [
        statistics.labels[i]
        for i, outcome in enumerate(statistics.comparison.outcomes)
        if outcome.sweep and outcome.learning_rate in edges(outcome.sweep)
    ]
    if ends:
        verb = "rates of {} lie" if len(ends) > 1 else "rate of {} lies"
        yield f"The best {verb.format(join(ends))} at an end of those that were tried: a better one may lie beyond."


def edges(runs: Sequence[ShortRun]) -> tuple[float, float]:
    rates = [run.learning_rate for run in runs]
    return min(rates), max(rates)
