"""Layers of different sizes by the compilers of a GPU and a TPU: memory, kernels, programs beside the isotropic model.

Command:   python experiments/bench/compile_profiles.py
Run time:  half an hour on one core. Needs the compilers: pip install -r requirements-compilers.txt
           Stopped, it goes on when the command is given again; --output is where its cases are kept.
Expected:  experiments/results/compile_profiles.md: every case compiles; operations, memory and what is sent are the
           isotropic model's within some percent, compile times grow with the runs of like layers.

The models of arXiv 2509.06518 (18 layers of width 768, 12 heads of 64, three queries to a key, 50,304 tokens) at 180M
parameters each, all trained.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import tyro
from compile_cases import reported, write_table
from compile_targets import ATTENTION, SENT, compile_step

from lesa_jax.base.files import write_json
from lesa_jax.base.units import parse_count
from lesa_jax.models.config import read_config
from lesa_jax.profiles.base import profiled
from lesa_jax.profiles.named import PROFILES

BASE = {
    "model_type": "llama",
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 50304,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
    "ffn_dim_divisor": 64,
}
PARAMETERS = "180M"
TARGETS = ("h100", "v5e:2x2")
TOKENS, SEQUENCES = 1024, 16


@dataclass(frozen=True)
class Settings:
    """What to compile."""

    output: Path = Path("build/profiles")
    """The base's config.json, and the report of every case that is done."""
    only: str = ""
    """Cases whose name, as in crown-h100, has this in it."""
    results: Path = Path(__file__).parents[1] / "results"


def main(settings: Settings) -> None:
    rows = []
    for target in TARGETS:
        reports: dict[str, dict[str, Any]] = {}
        for profile in PROFILES:
            name = f"{profile}-{target.replace(':', '_')}"
            file, wanted = settings.output / f"{name}.json", settings.only in name
            report = reported(file, wanted, compile_profile, target, profile, settings.output / "base")
            if report is not None:
                reports[profile] = report
        rows += [row(profile, report, reports.get("isotropic", report)) for profile, report in reports.items()]
    write_table(settings.results / "compile_profiles.md", [*HEAD, *rows])


def compile_profile(target: str, profile: str, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", BASE)
    fresh = ["--init", "random", "--config", str(folder / "config.json"), "--train", "all"]
    sizes = ["--profile", profile, "--parameters", PARAMETERS]
    batch = ["--batch-size", str(SEQUENCES), "--sequence-length", str(TOKENS), "--remat", "full"]
    return compile_step(target, [*fresh, *sizes, *batch])


HEAD = (
    "# Layers of different sizes, compiled for hardware that is not here",
    "",
    f"`experiments/bench/compile_profiles.py`, jax {jax.__version__}, by the compilers of libtpu 0.0.42.1 and CUDA "
    f"12.9. 18 layers of width 768, {PARAMETERS} parameters, all trained, `--remat full`, {SEQUENCES} x {TOKENS} "
    "tokens a step. A run is what lies between two layers of other sizes: one scan, one program. Operations are the "
    "formula's, a step's; sends are MiB of one chip in a step, with how often. Ratios are to the isotropic model.",
    "",
    "| profile | target | runs | operations | GiB a chip | attention kernels | gathered, scattered, summed, "
    "all-to-all | compiled in s |",
    "|---|---|---|---|---|---|---|---|",
)


def row(profile: str, report: dict[str, Any], isotropic: dict[str, Any]) -> str:
    attention = sum(times for name, times in report["kernels"].items() if any(word in name for word in ATTENTION))
    kinds = (report["collectives"].get(kind) for kind in SENT)
    sent = " ".join("-" if kind is None else f"{kind['bytes'] / 2**20:.1f} ({kind['count']:.0f})" for kind in kinds)
    size = report["bytes"]["total"] / 2**30
    return (
        f"| {profile} | {report['target']} | {runs_of(profile)} | "
        f"{times(report, isotropic, 'floor_seconds', 'compute')} | "
        f"{size:.2f} ({times(report, isotropic, 'bytes', 'total')}) | {attention:.0f} | {sent} | "
        f"{report['compile_seconds']:.0f} |"
    )


def times(report: dict[str, Any], other: dict[str, Any], *keys: str) -> str:
    """A figure over the other report's."""
    for key in keys:
        report, other = report[key], other[key]
    return f"{report / other:.3f}x"  # pyright: ignore[reportOperatorIssue]


def runs_of(profile: str) -> int:
    """Runs of layers that are alike."""
    model = read_config(profiled(BASE, profile, parse_count("--parameters", PARAMETERS)))
    sizes = [model.sizes_of(layer) for layer in range(model.num_layers)]
    return 1 + sum(one != other for one, other in pairwise(sizes))


if __name__ == "__main__":
    main(tyro.cli(Settings))
