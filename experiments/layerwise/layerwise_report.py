"""Table and picture of the experiment on layers of different sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from layerwise_runs import CLEAN, DEFECT, PLAIN, SCALED, Row, best, differences
from scipy.stats import t

from lesa_jax.base.files import write_text
from lesa_jax.reports.figures import open_axes, picture
from lesa_jax.reports.palette import PALETTE

REFERENCE = "isotropic"
NAMED = {PLAIN: "plain norms", SCALED: "LayerNorm Scaling"}


@dataclass(frozen=True)
class Compared:
    """A profile beside the isotropic one.

    Attributes:
      rows: of its best rate, one a seed.
      difference: mean difference of the losses on text, seed by seed.
      error: half of its 95 % interval, by Student's t; infinite with one seed.
    """

    rows: Sequence[Row]
    difference: float
    error: float

    @staticmethod
    def of(rows: Sequence[Row], reference: Sequence[Row]) -> "Compared":
        found = differences(rows, reference)
        if len(found) < 2:
            return Compared(rows, float(found.mean()) if len(found) else float("nan"), float("inf"))
        quantile = float(t.ppf(0.975, len(found) - 1))
        return Compared(rows, float(found.mean()), quantile * float(found.std(ddof=1)) / len(found) ** 0.5)

    @property
    def verdict(self) -> str:
        if abs(self.difference) <= self.error:
            return "not apart"
        return "better" if self.difference < 0 else "worse"

    @property
    def told(self) -> str:
        return f"{self.difference:+.4f}" + ("" if self.error == float("inf") else f" +- {self.error:.4f}")


Setup = tuple[str, int, str]  # data, tokens a parameter, norm


def write_report(path: Path, about: str, rows: Sequence[Row]) -> str:
    """Writes the table to `path` and the picture beside it; returns the table."""
    setups = compared(rows)
    text = "\n\n".join([about, *(section(setup, own) for setup, own in setups.items()), *over_norms(rows)]) + "\n"
    write_text(path, text)
    draw(setups, path.with_suffix(".png"))
    return text


def compared(rows: Sequence[Row]) -> dict[Setup, dict[str, Compared]]:
    """By setup and profile; the isotropic one is in each, and beside itself it is none."""
    grouped: dict[Setup, dict[str, list[Row]]] = {}
    for row in rows:
        grouped.setdefault((row.data, row.saturation, row.norm), {}).setdefault(row.profile, []).append(row)
    found = {}
    for setup, profiles in grouped.items():
        reference = best(profiles[REFERENCE])
        found[setup] = {name: Compared.of(best(own), reference) for name, own in profiles.items()}
    return found


def section(setup: Setup, profiles: dict[str, Compared]) -> str:
    data, saturation, norm = setup
    what = "every second token zero, as the published runs had it" if data == DEFECT else NAMED[norm]
    lines = [
        f"**{saturation} tokens a parameter, {what}.** "
        + ("The loss that is over all tokens is what such a run reports. " if data == DEFECT else "")
        + verdict(profiles),
        "",
        "| profile | parameters | rate | loss on text, by seed | from isotropic, 95 % | "
        + ("loss over all tokens | " if data == DEFECT else "")
        + "next token guessed | window's first eighth | second half | frequent third | rare third |",
        "|---|---|---|---|---|" + "---|" * (6 if data == DEFECT else 5),
    ]
    for name, own in profiles.items():
        first = own.rows[0]
        cells = [
            name,
            f"{first.parameters:,}",
            f"{first.rate:g}",
            ", ".join(f"{row.text_loss:.4f}" for row in own.rows),
            "" if name == REFERENCE else own.told,
            *([f"{mean(own, 'loss'):.4f}"] if data == DEFECT else []),
            *(f"{mean(own, key):.2%}" for key in ("accuracy", "beginning", "end", "frequent", "rare")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict(profiles: dict[str, Compared]) -> str:
    """A sentence: which profiles are apart from the isotropic one, beyond what seeds differ by."""
    words = {
        "better": "better than isotropic",
        "worse": "worse than isotropic",
        "not apart": "not apart from isotropic",
        "unknown": "of one seed, which cannot be told from chance",
    }
    found: dict[str, list[str]] = {word: [] for word in words}
    for name, own in profiles.items():
        if name != REFERENCE:
            found["unknown" if own.error == float("inf") else own.verdict].append(name)
    told = [f"{words[word]}: {', '.join(names)}" for word, names in found.items() if names]
    return "; ".join(told).capitalize() + "." if told else ""


def over_norms(rows: Sequence[Row]) -> list[str]:
    """What LayerNorm Scaling does, for each profile that has been trained with and without."""
    found = []
    for saturation in sorted({row.saturation for row in rows}):
        told = []
        for name in dict.fromkeys(row.profile for row in rows):
            pair = [[row for row in rows if row.group == (CLEAN, saturation, norm, name)] for norm in (SCALED, PLAIN)]
            if all(pair):
                told.append(f"{name} {Compared.of(*map(best, pair)).told}")
        if told:
            found.append(f"LayerNorm Scaling over plain norms at {saturation} tokens a parameter: {', '.join(told)}.")
    return found


def mean(own: Compared, key: str) -> float:
    return float(np.mean([getattr(row, key) for row in own.rows]))


def draw(setups: dict[Setup, dict[str, Compared]], path: Path) -> None:
    """How far each profile's loss is from the isotropic one's, a panel a setup."""
    with picture(path, 100 + 300 * len(setups), 360) as figure:
        panels = figure.subplots(1, len(setups), sharey=True, squeeze=False)[0]
        for axes, ((data, saturation, norm), profiles) in zip(panels, setups.items(), strict=True):
            names = list(profiles)
            for place, own in enumerate(profiles.values()):
                error = 0.0 if own.error == float("inf") else own.error
                axes.errorbar(own.difference, place, xerr=error, fmt="o", color=PALETTE[0], capsize=3)
            axes.axvline(0, color="grey", linestyle=":")
            axes.set_yticks(range(len(names)), names)
            axes.invert_yaxis()
            what = "every second token zero" if data == DEFECT else NAMED[norm]
            axes.set_title(f"{saturation} tokens a parameter,\n{what}", fontsize=10)
            axes.set_xlabel("loss from isotropic, nats")
            open_axes(axes, "x")
