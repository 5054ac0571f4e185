"""Twelve predictors in one vmapped program (4 norm weights x 3 seeds) against one: how much longer does a grid take?

Command:   python experiments/ablation/bench_grid.py
Run time:  about a minute and a half on 2 busy CPU cores.
Expected:  experiments/results/ablation_grid_time.csv. The goal was at most 3 times one predictor's time; a CPU that one
           predictor keeps busy has twelve times the work to do and cannot reach it. See experiments/README.md.

One weight kind of `--layers` layers, rows of Gaussian noise. The contestants take turns and the median of the rounds
counts, as the machine may have other work. "one after the other" is the same grid as a loop in one program.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from ablation import write_csv
from jaxtyping import Array

from lesa_jax.initializers.lesa.predictor import PUBLISHED, PredictorSettings, fit


@dataclass(frozen=True)
class Settings:
    layers: int = 16
    rows: int = 96
    width: int = 192
    hidden_sizes: tuple[int, ...] = (16, 64, 256)
    epochs: int = 3
    rounds: int = 7
    norm_weights: tuple[float, ...] = (0.0, 5e-5, 5e-4, 5e-3)
    seeds: int = 3
    output: Path = Path("experiments/results/ablation_grid_time.csv")


def contestants(v: Array, keys: Array, lams: Array, settings: PredictorSettings) -> dict[str, Callable[[], Array]]:
    """Compiled functions without arguments; each returns something that exists only when all training is done."""
    kept = jnp.ones(v.shape[1], bool)

    def one(key: Array, lam: Array) -> Array:
        return fit(v, kept, key, settings, lam).params["third_bias"]

    grid = jax.jit(jax.vmap(one)).lower(keys, lams).compile()
    loop = jax.jit(lambda keys, lams: jax.lax.map(lambda a: one(*a), (keys, lams))).lower(keys, lams).compile()
    single = jax.jit(one).lower(keys[0], lams[0]).compile()
    return {
        "one": functools.partial(single, keys[0], lams[0]),
        "vmapped": functools.partial(grid, keys, lams),
        "one after the other": functools.partial(loop, keys, lams),
    }


def interleaved(runs: dict[str, Callable[[], Array]], rounds: int) -> dict[str, float]:
    """Median seconds of each, taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run().block_until_ready()
            seconds[name].append(time.perf_counter() - started)
    return {name: median(values) for name, values in seconds.items()}


def main(settings: Settings) -> None:
    shape = (settings.layers, settings.rows, settings.width)
    v = jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32)) / np.sqrt(shape[0] * shape[2])
    seeds, weights = np.meshgrid(np.arange(settings.seeds), np.array(settings.norm_weights, np.float32))
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds.reshape(-1)))
    lams = jnp.asarray(weights.reshape(-1))
    rows = []
    for hidden in settings.hidden_sizes:
        shape = replace(PUBLISHED, hidden_size=hidden, epochs=settings.epochs)
        times = interleaved(contestants(v, keys, lams, shape), settings.rounds)
        row = {"device": jax.default_backend(), "hidden": hidden, "predictors": len(lams), "seconds_one": times["one"]}
        for name, label in (("vmapped", "vmapped"), ("one after the other", "loop")):
            row |= {f"seconds_{label}": times[name], f"ratio_{label}": times[name] / times["one"]}
        print(row, flush=True)
        rows.append(row)
    write_csv(settings.output, rows)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
