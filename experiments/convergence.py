"""How fast grown models learn: one curve of held-out loss for each method, and what they forget.

Command:   python experiments/convergence.py --model books16 --data tech-cpt.txt --eval-text tech-val.txt
               --other-text books-val.txt --tokens 200k --name tech
Run time:  about 3 minutes for each method and 200,000 tokens on 2 CPU cores. A stopped experiment goes on where it was.
Expected:  on another domain than the model's, LLaMA Pro learns fastest of the methods that freeze the originals and
           forgets least, then duplicate, SOLAR, LESA. See experiments/results/convergence_*.md.

All methods grow the model to half as many layers again, the new ones on top, and train the new layers only, on the same
batches. Yardsticks: base trained in full on the same tokens ("base, all"), and SOLAR trained in full.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from lesa_jax.evaluate import EvaluateSettings, evaluate
from lesa_jax.expand import ExpandSettings, expand
from lesa_jax.train import train
from lesa_jax.train_settings import TrainSettings, parse_count

METHODS: dict[str, tuple[dict[str, Any] | None, str]] = {
    "LLaMA Pro": ({"method": "llama_pro", "placement": "top"}, "new"),
    "LESA": ({"method": "lesa"}, "new"),
    "LESA, previous norms": ({"method": "lesa", "norm_source": "previous"}, "new"),
    "duplicate": ({"method": "duplicate", "placement": "top"}, "new"),
    "SOLAR": ({"method": "solar"}, "new"),
    "SOLAR, all": ({"method": "solar"}, "all"),
    "base, all": (None, "all"),
}


@dataclass(frozen=True)
class ConvergenceSettings:
    """What to compare, on which text."""

    model: Path
    data: Path
    eval_text: Path
    """Held-out text of the same domain."""
    name: str
    """Of the results: experiments/results/convergence_NAME.md, .csv and .png."""
    other_text: Path | None = None
    """Text of the model's own domain, measured after training: what was forgotten."""
    methods: tuple[str, ...] = tuple(METHODS)
    tokens: str = "200k"
    rates: tuple[float, ...] = (1e-3,)
    """Peak learning rates; the best one of each method is reported, by its final loss."""
    seeds: tuple[int, ...] = (0,)
    evaluations: int = 4
    batch_size: int = 16
    sequence_length: int = 256
    work: Path = Path("convergence")
    """Grown models and runs."""
    results: Path = Path("experiments/results")


@dataclass(frozen=True)
class Curve:
    """One run: held-out losses by tokens, and the loss on the other text before and after."""

    method: str
    rate: float
    seed: int
    points: tuple[tuple[int, float], ...]
    other: float | None


def run_one(settings: ConvergenceSettings, method: str, rate: float, seed: int) -> Curve:
    """Grows and trains, or goes on with, one variant."""
    growth, trained = METHODS[method]
    slug = "".join(c if c.isalnum() else "-" for c in method.lower())
    model = settings.model
    if growth is not None:
        model = settings.work / f"{slug}-{seed}"
        if not model.exists():
            options: dict[str, Any] = growth | ({"seed": seed} if growth["method"] == "lesa" else {})
            expand(ExpandSettings(str(settings.model), model, **options))
    steps = TrainSettings(tokens=settings.tokens, batch_size=settings.batch_size)
    output = settings.work / f"run-{settings.name}-{slug}-{rate:g}-{seed}"
    report = train(
        replace(
            steps,
            model=str(model),
            data=str(settings.data),
            output=output,
            train=trained,
            sequence_length=settings.sequence_length,
            learning_rate=rate,
            seed=seed,
            eval_text=settings.eval_text,
            eval_every=max(1, total_steps(settings) // settings.evaluations),
            save_every=max(1, total_steps(settings) // settings.evaluations),
            token_cache=settings.work / "tokens",
        )
    )
    assert not report.stopped
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    points = tuple((row["tokens"], row["eval_loss"]) for row in rows if row["eval_loss"] is not None)
    other = measure_other(settings, output / "final")
    return Curve(method, rate, seed, points, other)


def total_steps(settings: ConvergenceSettings) -> int:
    return parse_count("--tokens", settings.tokens) // (settings.batch_size * settings.sequence_length)


def measure_other(settings: ConvergenceSettings, folder: Path) -> float | None:
    if settings.other_text is None:
        return None
    measured = evaluate(
        EvaluateSettings(str(folder), text=settings.other_text, sequence_length=settings.sequence_length)
    )
    return measured["nll"]


def write_results(settings: ConvergenceSettings, curves: list[Curve], base_other: float | None) -> None:
    """A CSV of all runs, a table and a picture of the best rate of each method."""
    stem = settings.results / f"convergence_{settings.name}"
    lines = ["method,rate,seed,tokens,eval_loss"]
    lines += [
        f'"{curve.method}",{curve.rate:g},{curve.seed},{tokens},{loss:.5f}'
        for curve in curves
        for tokens, loss in curve.points
    ]
    stem.with_suffix(".csv").write_text("\n".join(lines) + "\n")
    best = best_rates(curves)
    marks = [tokens for tokens, _ in curves[0].points]
    header = ["start", "rate", *(f"{tokens / 1e3:.0f}k" for tokens in marks)]
    header += [] if base_other is None else [f"other text after (base {math.exp(base_other):.2f})"]
    table = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for method, runs in best.items():
        cells = [method, f"{runs[0].rate:g}"]
        cells += [spread([run.points[i][1] for run in runs]) for i in range(len(marks))]
        if base_other is not None:
            cells.append(spread([run.other for run in runs if run.other is not None]))
        table.append(f"| {' | '.join(cells)} |")
    text = (
        f"`experiments/convergence.py`: `{settings.model.name}`, data `{settings.data.name}`, perplexity on "
        f"`{settings.eval_text.name}` by tokens trained; windows of {settings.sequence_length} tokens, batch "
        f"{settings.batch_size}, seeds {list(settings.seeds)}, rates tried {list(settings.rates)}.\n\n"
    )
    stem.with_suffix(".md").write_text(text + "\n".join(table) + "\n")
    draw(best, stem.with_suffix(".png"))


def best_rates(curves: list[Curve]) -> dict[str, list[Curve]]:
    """For each method the runs of the rate whose mean final loss is lowest."""
    best: dict[str, list[Curve]] = {}
    for method in dict.fromkeys(curve.method for curve in curves):
        by_rate: dict[float, list[Curve]] = {}
        for curve in curves:
            if curve.method == method:
                by_rate.setdefault(curve.rate, []).append(curve)
        best[method] = min(by_rate.values(), key=lambda runs: sum(run.points[-1][1] for run in runs) / len(runs))
    return best


def spread(losses: list[float]) -> str:
    """Perplexity of each run: their mean, and the standard deviation if there are several."""
    values = [math.exp(loss) for loss in losses]
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.2f}"
    return f"{mean:.2f} +- {math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1)):.2f}"


def draw(best: dict[str, list[Curve]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for method, runs in best.items():
        tokens = [tokens for tokens, _ in runs[0].points]
        means = [sum(run.points[i][1] for run in runs) / len(runs) for i in range(len(tokens))]
        axes.plot(tokens, means, marker="o", label=method)
    axes.set_xlabel("tokens trained")
    axes.set_ylabel("held-out loss, nats a token")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_png(str(path))


def main(settings: ConvergenceSettings) -> None:
    settings.work.mkdir(parents=True, exist_ok=True)
    curves: list[Curve] = []
    base_other = measure_other(settings, settings.model)
    for method in settings.methods:
        for rate in settings.rates:
            curves += [run_one(settings, method, rate, seed) for seed in settings.seeds]
            write_results(settings, curves, base_other)


if __name__ == "__main__":
    main(tyro.cli(ConvergenceSettings, description=__doc__))
