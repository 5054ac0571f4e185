"""How loss falls with depth in language models: the law of width, depth and tokens on Chinchilla's runs, fitted again.

Command:   python experiments/depth_law/chinchilla.py            (needs the network, once)
Run time:  a minute.
Expected:  experiments/results/chinchilla_depth.md, .csv and .png. On the 203 runs the exponent of depth is 1.325 +-
           0.287, with two layers fewer counted 1.098 +- 0.258; 100 times the mean square of log loss is 0.0030274.

The runs are Chinchilla's, read off its figure by Epoch AI (arXiv 2404.10102) and joined with width and depth by the
authors of "Inverse Depth Scaling From Most Layers Being Similar" (arXiv 2602.05970). Their repository has no licence,
so that the table is fetched and not kept here. Their fit, by Adam, stopped short of the optimum.
"""

import csv
import urllib.request
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import tyro

from lesa_jax.analysis.scaling_law import Law, bootstrap, fit_law, held_out_errors, without_worst
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import replace_file, write_text
from lesa_jax.reports.figures import open_axes, picture
from lesa_jax.reports.palette import PALETTE

URL = (
    "https://raw.githubusercontent.com/liuyz0/DepthScaling/25cebe03ca63f5c4369fe76e706edab3737fa281/"
    "Scaling/get_fitting_data_chinchilla.csv"
)
SHA256 = "cb474e8f5fc87be4132190a0c782d1521c4f06b9c041395b3a78ff2ffc34f83e"
TERMS = ("width", "depth", "tokens")
COLUMNS = ("d_model", "n_layers", "num_tokens")
LEFT_OUT = 40  # runs with the highest losses, as published: those above the 40th-highest
CUTS = (1, 10, 20, 30, 40, 50, 60, 80, 100)
ENDS = 2  # layers that the paper's second fit does not count: the first and the last do other work
# Of width, depth and tokens, as published: exponents and standard errors, then with two layers fewer depth's alone.
PUBLISHED = ((0.977, 0.083), (1.201, 0.269), (0.299, 0.014)), (1.066, 0.242)
HUNDREDTHS = np.array([[1.0], [100.0], [1.0]])  # of a layer: the unit of depth in the published fit


@dataclass(frozen=True)
class Settings:
    """Where the table is."""

    table: Path = Path("build/chinchilla.csv")
    """Fetched if it is not there."""
    resamples: int = 200
    results: Path = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Runs:
    """Width, depth and tokens of each run, and its loss."""

    sizes: np.ndarray
    losses: np.ndarray

    def below(self, left_out: int) -> "Runs":
        """Without those of the highest losses."""
        kept = without_worst(self.losses, left_out)
        return Runs(self.sizes[:, kept], self.losses[kept])

    def with_depth(self, less: float) -> "Runs":
        """With so many layers not counted."""
        return Runs(self.sizes - np.array([[0.0], [less], [0.0]]), self.losses)


def main(settings: Settings) -> None:
    runs = read_runs(fetched(settings.table))
    kept = runs.below(LEFT_OUT)
    print(f"{len(kept.losses)} of {len(runs.losses)} runs", flush=True)
    whole, inner = fit_law(kept.sizes, kept.losses), fit_law(kept.with_depth(ENDS).sizes, kept.losses)
    cuts = [cut_row(runs, count) for count in CUTS]
    settings.results.mkdir(parents=True, exist_ok=True)
    output = settings.results / "chinchilla_depth.md"
    write_text(output, page(settings, kept, whole, inner, cuts))
    write_csv(cuts, output.with_suffix(".csv"))
    draw(kept, whole, cuts, output.with_suffix(".png"))
    print(output.read_text())


def fetched(table: Path) -> Path:
    """The table's file, which must be the one that the numbers here are about."""
    if not table.exists():
        table.parent.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(URL, timeout=60) as answer:
                data = answer.read()
        except OSError as error:
            raise InputError(f"{URL}: {error}; fetch it elsewhere and name it with --table") from None
        replace_file(table, lambda file: file.write_bytes(data))
    if sha256(table.read_bytes()).hexdigest() != SHA256:
        raise InputError(f"--table {table}: is not the table at {URL}; remove it to fetch that")
    return table


def read_runs(table: Path) -> Runs:
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    sizes = np.array([[float(row[name]) for row in rows] for name in COLUMNS])
    return Runs(sizes, np.array([float(row["loss"]) for row in rows]))


def cut_row(runs: Runs, count: int) -> dict[str, float]:
    """The exponents of depth when so many of the worst runs are left out."""
    kept = runs.below(count)
    row: dict[str, float] = {"left_out": len(runs.losses) - len(kept.losses)}
    for name, less in (("depth", 0), ("inner_depth", ENDS)):
        law = fit_law(kept.with_depth(less).sizes, kept.losses)
        row |= {name: law.exponents[1], f"{name}_error": law.errors[4], f"{name}_objective": 100 * law.objective}
    return row


def page(settings: Settings, kept: Runs, whole: Law, inner: Law, cuts: list[dict[str, float]]) -> str:
    """What came out, as Markdown."""
    drawn = bootstrap(whole, kept.sizes, kept.losses, settings.resamples)
    inner_drawn = bootstrap(inner, kept.with_depth(ENDS).sizes, kept.losses, settings.resamples)
    errors = held_out_errors(whole, kept.sizes, kept.losses).mean(axis=0)
    hundredths = fit_law(kept.sizes * HUNDREDTHS, kept.losses)
    shared = np.corrcoef(np.log(kept.sizes[:2]))[0, 1]
    paragraphs = [
        f"`experiments/depth_law/chinchilla.py`: {len(kept.losses)} of Chinchilla's runs; "
        "L = c_m m^-a_m + c_l l^-a_l + c_D D^-a_D + L0 of width m, depth l and tokens D.",
        law_table(whole, inner),
        f"Of all beginnings {100 * whole.agreeing:.0f} % end there. Of {settings.resamples} resamples depth's exponent "
        f"is {spread(drawn)}, with {ENDS} layers not counted {spread(inner_drawn)}. The mean relative error is "
        f"{errors[0]:.2%}, and {errors[1]:.2%} on a fifth of the runs that is kept out (ten splits).",
        f"The prefactor c_l is e^({whole.log_prefactors[1]:.2f} +- {whole.errors[1]:.2f}), in the published unit, "
        f"hundredths of a layer, e^({hundredths.log_prefactors[1]:.2f} +- {hundredths.errors[1]:.2f}): it is the loss "
        "of a model of one such unit, far from all runs, and deep models are wide ones (correlation of log l and "
        f"log m {shared:.2f}). What the fit says of depths that were run:",
        worth_table(whole, drawn),
        "By how many of the runs with the highest losses are left out:",
        cut_table(cuts),
    ]
    return "\n\n".join(paragraphs) + "\n"


def law_table(whole: Law, inner: Law) -> str:
    """The published fits and these."""
    published = " | ".join(f"{a:.3f} +- {e:.3f}" for a, e in PUBLISHED[0])
    depth, error = PUBLISHED[1]
    lines = [
        "| | width a_m | depth a_l | tokens a_D | L0 | 100 x mean square of log loss |",
        "|---|---|---|---|---|---|",
        f"| published (Adam) | {published} | 1.750 +- 0.026 | 0.00307 |",
        law_row("here", whole),
        f"| published, {ENDS} layers not counted | | {depth:.3f} +- {error:.3f} | | | |",
        law_row(f"here, {ENDS} layers not counted", inner),
    ]
    return "\n".join(lines)


def law_row(name: str, law: Law) -> str:
    values = [*zip(law.exponents, law.errors[3:6], strict=True), (law.floor, law.errors[6])]
    return f"| {name} | {' | '.join(f'{v:.3f} +- {e:.3f}' for v, e in values)} | {100 * law.objective:.5f} |"


def spread(drawn: np.ndarray) -> str:
    """Median and the middle 95 % of depth's exponent."""
    low, middle, high = np.percentile(drawn[:, 4], (2.5, 50, 97.5))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def worth_table(law: Law, drawn: np.ndarray) -> str:
    """Depth's part of the loss, and what 1.5 times the depth takes off it; errors over resamples."""

    def part(parameters: np.ndarray, depth: float) -> np.ndarray:
        return np.exp(parameters[..., 1] - parameters[..., 4] * np.log(depth))

    def worth(parameters: np.ndarray, depth: float) -> np.ndarray:
        return part(parameters, depth) - part(parameters, 1.5 * depth)

    lines = [
        "| layers | depth's part of the loss, nats | what half as many layers again are worth |",
        "|---|---|---|",
        *(
            f"| {depth} | {part(law.parameters, depth):.3f} +- {part(drawn, depth).std():.3f} | "
            f"{worth(law.parameters, depth):.3f} +- {worth(drawn, depth).std():.3f} |"
            for depth in (12, 24, 32, 48)
        ),
    ]
    return "\n".join(lines)


def cut_table(cuts: list[dict[str, float]]) -> str:
    lines = [
        f"| left out | a_l | {ENDS} layers not counted |",
        "|---|---|---|",
        *(
            f"| {row['left_out']:.0f} | {row['depth']:.2f} +- {row['depth_error']:.2f} | "
            f"{row['inner_depth']:.2f} +- {row['inner_depth_error']:.2f} |"
            for row in cuts
        ),
    ]
    return "\n".join(lines)


def write_csv(cuts: list[dict[str, float]], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(cuts[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in cuts)


def draw(kept: Runs, law: Law, cuts: list[dict[str, float]], path: Path) -> None:
    """Left: what loss is left when the law's other parts are taken off, by depth. Right: the exponent by the cut."""
    depth = kept.sizes[1]
    part = np.exp(law.log_prefactors[1] - law.exponents[1] * np.log(depth))
    left_over = kept.losses - law.predict(kept.sizes) + part
    with picture(path, 1200, 500) as figure:
        left, right = figure.subplots(1, 2)
        left.plot(depth, left_over, ".", color=PALETTE[0], alpha=0.4)
        order = np.argsort(depth)
        left.plot(depth[order], part[order], color=PALETTE[1], label=f"exponent {law.exponents[1]:.2f}")
        left.set_xlabel("layers")
        left.set_ylabel("loss without the parts of width, tokens and floor, nats")
        left.legend(frameon=False)
        for colour, name, label in ((0, "depth", "all layers"), (1, "inner_depth", f"{ENDS} layers not counted")):
            values, errors = ([row[key] for row in cuts] for key in (name, f"{name}_error"))
            right.errorbar(
                [row["left_out"] + colour for row in cuts],
                values,
                errors,
                color=PALETTE[colour],
                label=label,
                marker="o",
            )
        right.axhline(1, color="grey", linestyle=":")
        right.set_xlabel("runs of the highest losses that are left out")
        right.set_ylabel("exponent of depth, and its standard error")
        right.legend(frameon=False, loc="upper left")
        for axes in (left, right):
            open_axes(axes)


if __name__ == "__main__":
    main(tyro.cli(Settings))
