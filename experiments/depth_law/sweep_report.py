"""Table and picture of the sweep over depths: the law, and what grown models lack of it at what cost."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sweep_runs import GROWN, SCRATCH, Row, best

from lesa_jax.analysis.scaling_law import Law, fit_law
from lesa_jax.base.files import write_text
from lesa_jax.base.units import short
from lesa_jax.reports.figures import open_axes, picture
from lesa_jax.reports.palette import DASHES, PALETTE, style


@dataclass(frozen=True)
class Outcome:
    """What came of one way to spend further tokens on a base; losses are means over seeds.

    Attributes:
      way, base, tokens, rate: of its runs.
      loss: at their end.
      above: that of the law, at twice the base's depth.
      error: of the law there, a standard error.
      share: operations over those of training that depth from nothing.
      whole: the same with the base's.
    """

    way: str
    base: int
    tokens: int
    rate: float
    loss: float
    above: float
    error: float
    share: float
    whole: float

    @staticmethod
    def of(rows: Sequence[Row], scratch: dict[int, list[Row]], law: Law) -> "Outcome":
        first, loss = rows[0], float(np.mean([row.loss for row in rows]))
        wanted = np.array([[2.0 * first.base]])
        own, base, deep = first.flops, scratch[first.base][0].flops, scratch[2 * first.base][0].flops
        return Outcome(
            way=first.way,
            base=first.base,
            tokens=first.tokens,
            rate=first.rate,
            loss=loss,
            above=loss - law.predict(wanted)[0],
            error=law.predict_error(wanted)[0],
            share=own / deep,
            whole=(own + base) / deep,
        )

    @property
    def reaches(self) -> bool:
        """Whether the law's loss is reached, within its standard error."""
        return self.above <= self.error


def write_report(path: Path, about: str, rows: Sequence[Row]) -> str:
    """Writes the table to `path` and the picture beside it; returns the table.

    Args:
      path: ends with .md.
      about: the sentence that it begins with.
      rows: all finished runs, those from nothing of at least three depths.
    """
    depths = sorted({row.layers for row in rows if row.way == SCRATCH})
    scratch = {depth: best(row for row in rows if row.way == SCRATCH and row.layers == depth) for depth in depths}
    runs = [row for own in scratch.values() for row in own]
    law = fit_law(np.array([[float(row.layers) for row in runs]]), np.array([row.loss for row in runs]))
    groups: dict[tuple[int, int, int], list[Row]] = {}
    for row in rows:
        if row.way in GROWN:
            groups.setdefault((row.base, GROWN.index(row.way), row.tokens), []).append(row)
    outcomes = [Outcome.of(best(own), scratch, law) for _, own in sorted(groups.items())]
    text = page(about, scratch, law, outcomes)
    write_text(path, text)
    draw(scratch, law, outcomes, path.with_suffix(".png"))
    return text


def page(about: str, scratch: dict[int, list[Row]], law: Law, outcomes: Sequence[Outcome]) -> str:
    """What came out, as Markdown."""
    values = [f"{value:.3g} +- {error:.2g}" for value, error in zip(law.parameters, law.errors, strict=True)]
    paragraphs = [
        about,
        scratch_table(scratch, law),
        f"L(l) = c l^-a + L0: a = {values[1]}, L0 = {values[2]}, ln c = {values[0]}; the root of the mean square of "
        f"log loss is {law.objective**0.5:.1e}.",
        growth_table(outcomes),
        *verdicts(outcomes),
    ]
    return "\n\n".join(paragraphs) + "\n"


def scratch_table(scratch: dict[int, list[Row]], law: Law) -> str:
    lines = ["| layers | parameters | tokens a parameter | rate | losses | law |", "|---|---|---|---|---|---|"]
    for depth, rows in sorted(scratch.items()):
        first, at = rows[0], np.array([[float(depth)]])
        lines.append(
            f"| {depth} | {short(first.parameters)} | {first.tokens / first.parameters:.0f} | {first.rate:g} | "
            f"{', '.join(f'{row.loss:.4f}' for row in rows)} | "
            f"{law.predict(at)[0]:.4f} +- {law.predict_error(at)[0]:.4f} |"
        )
    return "\n".join(lines)


def growth_table(outcomes: Sequence[Outcome]) -> str:
    lines = [
        "| layers | way | further tokens | rate | loss | above the law's at twice the layers | operations, share of "
        "that depth's from nothing | with the base's |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {own.base} | {own.way} | {short(own.tokens)} | {own.rate:g} | {own.loss:.4f} | {own.above:+.4f} +- "
            f"{own.error:.4f} | {own.share:.2f} | {own.whole:.2f} |"
            for own in outcomes
        ),
    ]
    return "\n".join(lines)


def verdicts(outcomes: Sequence[Outcome]) -> list[str]:
    """A sentence for each base and way: at what cost the law's loss is reached."""
    found = []
    for (base, way), group in itertools.groupby(outcomes, lambda own: (own.base, own.way)):
        own = list(group)
        reached = next((outcome for outcome in own if outcome.reaches), None)
        said = (
            f"does not reach the law's loss at {2 * base} layers: {min(o.above for o in own):.4f} nats are missing"
            if reached is None
            else f"reaches the law's loss at {2 * base} layers with {reached.share:.0%} of the operations from "
            f"nothing, {reached.whole:.0%} with the base's"
        )
        found.append(f"{base} layers, {way}: {said}.")
    return found


def draw(scratch: dict[int, list[Row]], law: Law, outcomes: Sequence[Outcome], path: Path) -> None:
    """Left: loss over depth and the law. Right: what grown models lack of it, over their operations."""
    with picture(path, 1200, 500) as figure:
        left, right = figure.subplots(1, 2)
        depths = np.geomspace(min(scratch), max(scratch), 100)
        middle, error = law.predict(depths[None]), law.predict_error(depths[None])
        left.plot(depths, middle, color=PALETTE[1], label=f"law, exponent {law.exponents[0]:.2f}")
        left.fill_between(depths, middle - error, middle + error, color=PALETTE[1], alpha=0.2, linewidth=0)
        points = [(row.layers, row.loss) for rows in scratch.values() for row in rows]
        left.plot(*zip(*points, strict=True), "o", color=PALETTE[0], label="from nothing")
        left.set_xscale("log", base=2)
        left.set_xticks(list(scratch), [str(depth) for depth in scratch])
        left.set_xlabel("layers")
        left.set_ylabel("held-out loss, nats")
        for place, ((base, way), group) in enumerate(itertools.groupby(outcomes, lambda own: (own.base, own.way)), 1):
            own = list(group)
            colour, dash = style(place)
            right.plot(
                [outcome.share for outcome in own],
                [outcome.above for outcome in own],
                color=PALETTE[colour],
                dashes=DASHES[dash],
                marker="o",
                label=f"{base} layers, {way}",
            )
        right.axhline(0, color="grey", linestyle=":")
        right.set_xlabel("operations, as a share of training twice the layers from nothing")
        right.set_ylabel("loss above the law's at twice the layers, nats")
        for axes in (left, right):
            open_axes(axes)
            axes.legend(frameon=False)
