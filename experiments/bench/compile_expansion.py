"""LESA's own programs by the compilers of a GPU and a TPU: do they fit, and how many kernels does a step start?

Command:   python experiments/bench/compile_expansion.py
Run time:  some 20 minutes on one core. Needs the compilers: pip install -r requirements-compilers.txt
           Stopped, it goes on when the command is given again; --output is where its cases are kept.
Expected:  experiments/results/compile_expansion.md.

A kind's matrices of all layers are on the device at once, as `expand` has them there, and kinds of one shape train
together. Nothing runs, so that nothing is said of time but what the number of kernels says.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from compile_cases import reported, write_table
from device_stages import CASES, STORED, Case, Kinds
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.initializers.lesa.ahead import Ahead
from lesa_jax.initializers.lesa.predict import prediction_programs
from lesa_jax.initializers.lesa.predictor import fit_programs
from lesa_jax.initializers.lesa.svd import refinement_programs, svd_programs, svd_shapes
from lesa_jax.parallel.compilation import compile_lowered
from lesa_jax.parallel.operations import launches
from lesa_jax.parallel.targets import parse_target, prepare_compilers, target_devices
from lesa_jax.planning.methods import Lesa

LLAMA_70B = Case(
    "Llama-3-70B",
    80,
    (
        Kinds(("k", "v"), 1024, 8192),
        Kinds(("q", "o"), 8192, 8192),
        Kinds(("down",), 8192, 28672),
        Kinds(("gate", "up"), 28672, 8192),
    ),
    8192,
    1 << 31,
)
MODELS = (CASES["8b"], LLAMA_70B)
TARGETS = ("h100", "v5e:2x2")  # of which one chip computes
TRAINING = "predictor's training"


@dataclass(frozen=True)
class Settings:
    """What to compile."""

    output: Path = Path("build/expansion")
    """The figures of every case that is done."""
    only: str = ""
    """Cases whose name has this in it."""
    results: Path = Path(__file__).parents[1] / "results"


def main(settings: Settings) -> None:
    rows = []
    for target in TARGETS:
        for case in MODELS:
            for kinds in case.kinds:
                name = f"{target.replace(':', '_')}-{case.name}-{kinds.names[0]}"
                file, wanted = settings.output / f"{name}.json", settings.only in name
                report = reported(file, wanted, compile_kinds, target, case, kinds)
                if report is not None:
                    rows += [row(target, case, kinds, one) for one in report["programs"]]
    write_table(settings.results / "compile_expansion.md", [*HEAD, *rows])


def programs(case: Case, kinds: Kinds) -> Iterator[Ahead]:
    """What `expand` runs for kinds of one shape: each taken apart by itself, all predictors trained together."""
    w = jax.ShapeDtypeStruct((case.layers, kinds.out, kinds.fan_in), STORED)
    yield from svd_programs(w)
    yield from refinement_programs(w)
    _, _, v, kept = svd_shapes(w)
    *_, training = fit_programs(v, kept)
    yield together(training, len(kinds.names))
    gaps = tuple(range(0, case.layers - 1, 2))
    yield prediction_programs(w.shape, w.dtype, gaps, Lesa())[-1]


def together(training: Ahead, count: int) -> Ahead:
    """The training of `count` predictors in one loop, as `learn_together` has it."""
    params, v, order, used, norm_weight, settings = training.args
    train = partial(training.function, norm_weight=norm_weight, settings=settings)
    arrays = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), (params, v, order, used))
    return Ahead(TRAINING, jax.jit(jax.vmap(train)), arrays)


def compile_kinds(target_name: str, case: Case, kinds: Kinds) -> dict[str, Any]:
    """Memory and kernels of each program; a refusal's words where there is no memory."""
    prepare_compilers()
    target = parse_target(target_name)
    sharding = NamedSharding(Mesh(np.array(target_devices(target)[:1]), "x"), P())
    found = []
    for program in programs(case, kinds):
        print(f"{target_name}, {case.name}, {', '.join(kinds.names)}: {program.name} ...", flush=True)
        args = jax.tree.map(partial(on_device, sharding), program.args)
        compiled = compile_lowered(program.function.lower(*args), target)
        runs = launches(compiled.program) if compiled.program.bodies else None
        found.append({"program": program.name, "bytes": compiled.total, "limit": target.chip.memory, "launches": runs})
    return {"programs": found}


def on_device(sharding: NamedSharding, x: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) if isinstance(x, jax.ShapeDtypeStruct) else x


HEAD = (
    "# LESA's programs, compiled for hardware that is not here",
    "",
    f"`experiments/bench/compile_expansion.py`, jax {jax.__version__}, by the compilers of libtpu 0.0.42.1 and CUDA "
    "12.9. All layers' matrices of a kind are on the device in bfloat16; kinds of one shape train together. Launches: "
    "kernels and copies that a run of the program starts, loops turn by turn; in brackets those of one step of the "
    "predictors. Eigenvectors are one call of a library on a GPU.",
    "",
    "| model | target | kinds: [layers, out, in] | program | GiB | fits | launches |",
    "|---|---|---|---|---|---|---|",
)


def row(target: str, case: Case, kinds: Kinds, found: dict[str, Any]) -> str:
    total, runs = found["bytes"], found["launches"]
    fits = "no" if total is None or total > found["limit"] else "yes"
    size = "?" if total is None else f"{total / 2**30:.1f} of {found['limit'] / 2**30:.1f}"
    shape = f"{', '.join(kinds.names)}: [{case.layers}, {kinds.out}, {kinds.fan_in}]"
    counted = "-" if runs is None else f"{runs:,}"
    if runs is not None and found["program"] == TRAINING:
        counted += f" ({runs / kinds.steps(case.layers):.1f})"
    return f"| {case.name} | {target} | {shape} | {found['program']} | {size} | {fits} | {counted} |"


if __name__ == "__main__":
    main(tyro.cli(Settings))
