"""What LESA costs against layers, width and new layers: seconds, memory, and the exponents between them.

Command:   python experiments/bench/bench_cost.py
Run time:  about 12 minutes on 2 idle CPU cores.
Expected:  seconds grow with nearly the first power of layers, with the second of width and more the wider, and hardly
           with new layers; memory stays below --memory. experiments/results/bench_cost.md and .png.

Random llamas in float32, whole processes; seconds are those of the stages that compute. Exponents are slopes of least
squares between logarithms; each axis moves alone, the others stand at 8 layers, width 512 and 4 new layers.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from bench_report import write_report
from processes import expansion, watched
from random_llama import write_llama

STAGES = ("decompose", "learn", "new layers")
AXES = {
    "layers": [(8, 512, 4), (16, 512, 4), (32, 512, 4), (64, 512, 4)],
    "width": [(8, 256, 4), (8, 512, 4), (8, 1024, 4), (8, 2048, 4)],
    "new layers": [(32, 512, 2), (32, 512, 4), (32, 512, 8), (32, 512, 16)],
}
AXIS_OF = {"layers": 0, "width": 1, "new layers": 2}


@dataclass(frozen=True)
class Settings:
    """What to run."""

    memory: str = "1GB"
    """`--memory` of the expansions: V of a kind is larger in the deepest and the widest."""
    output: Path = Path("experiments/results/bench_cost.md")


@dataclass(frozen=True)
class Cost:
    """Seconds of the stages, in their order, and the most anonymous memory, bytes."""

    seconds: tuple[float, ...]
    peak: int


def main(settings: Settings) -> None:
    found: dict[tuple[int, int, int], Cost] = {}
    with tempfile.TemporaryDirectory() as name:
        for shape in dict.fromkeys(shape for shapes in AXES.values() for shape in shapes):
            found[shape] = cost(Path(name), *shape, settings.memory)
            print(shape, found[shape], flush=True)
    rows = []
    for axis, shapes in AXES.items():
        x = [shape[AXIS_OF[axis]] for shape in shapes]
        exponent = slope(x, [sum(found[shape].seconds) for shape in shapes])
        grows = slope(x, [found[shape].peak for shape in shapes])
        for shape in shapes:
            costs = found[shape]
            by_stage = [f"{seconds:.1f}" for seconds in (*costs.seconds, sum(costs.seconds))]
            rows.append((axis, *map(str, shape), *by_stage, f"{costs.peak / 1e9:.2f}", "", ""))
        rows.append((f"{axis}, exponent", *[""] * 8, f"{exponent:.2f}", f"{grows:.2f}"))
    header = ("axis", "layers", "width", "new", *STAGES, "sum, s", "memory, GB", "of seconds", "of memory")
    what = f"LESA under --memory {settings.memory}, feed-forward 2.75 widths"
    write_report(settings.output, "experiments/bench/bench_cost.py", ("jax", "numpy", "scipy"), what, header, rows)
    draw(found, settings.output.with_suffix(".png"))


def cost(folder: Path, layers: int, width: int, new: int, memory: str) -> Cost:
    model, grown = folder / f"{layers}-{width}", folder / f"{layers}-{width}-{new}-grown"
    if not model.exists():
        write_llama(model, width, 11 * width // 4, layers, heads=8, distinct=16)
    run = watched(expansion(model=model, output=grown, method="lesa", layers=layers + new, memory=memory))
    seconds = json.loads(run.output.splitlines()[-1])["seconds"]
    return Cost(tuple(seconds[stage] for stage in STAGES), run.peak)


def slope(x: list[int], y: list[float]) -> float:
    """Of log y against log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def draw(found: dict[tuple[int, int, int], Cost], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    for column, (axis, shapes) in zip(figure.subplots(2, 3, sharey="row").T, AXES.items(), strict=True):
        x = [shape[AXIS_OF[axis]] for shape in shapes]
        times, memory = column
        for number, stage in enumerate(STAGES):
            times.plot(x, [found[shape].seconds[number] for shape in shapes], "o-", label=stage)
        memory.plot(x, [found[shape].peak / 1e9 for shape in shapes], "o-", color="grey")
        times.set_title(axis)
        times.set_yscale("log")
        for one in column:
            one.set_xscale("log", base=2)
            one.set_xticks(x, map(str, x))
            one.spines[["top", "right"]].set_visible(False)
    left = figure.axes[0], figure.axes[3]
    left[1].set_ylim(0, 1.1 * max(one.peak for one in found.values()) / 1e9)
    for one, label in zip(left, ("seconds", "memory, GB"), strict=True):
        one.set_ylabel(label)
    figure.legend(*left[0].get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False)
    FigureCanvasAgg(figure).print_png(str(path))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
