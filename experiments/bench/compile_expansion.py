"""LESA's own programs by the compilers of a GPU and a TPU: do they fit, and how many kernels does a step start?

Command:   python experiments/bench/compile_expansion.py
Run time:  some 20 minutes on one core. Needs the compilers: pip install -r requirements-compilers.txt
           Stopped, it goes on when the command is given again; --output is where its cases are kept.
Expected:  experiments/results/compile_expansion.md.

Rows of kinds that fit are on the device, and these kinds train together, as `expand` has it; others stay on the host.
Nothing runs, so that nothing is said of time but what the number of kernels says.
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
from lesa_jax.initializers.lesa.predictor import param_shapes, sample_order, train
from lesa_jax.initializers.lesa.streaming import streaming_programs
from lesa_jax.initializers.lesa.svd import refinement_programs, svd_programs, svd_shapes
from lesa_jax.parallel.compilation import compile_lowered
from lesa_jax.parallel.operations import launches
from lesa_jax.parallel.targets import parse_target, prepare_compilers, target_devices
from lesa_jax.planning.methods import PUBLISHED, Lesa

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
                    rows += [row(target, case, kinds, report, one) for one in report["programs"]]
    write_table(settings.results / "compile_expansion.md", [*HEAD, *rows])


def programs(case: Case, kinds: Kinds, streamed: bool) -> Iterator[Ahead]:
    """What `expand` runs for kinds of one shape: each taken apart by itself; all predictors trained together, or one
    after the other on batches that come from the host."""
    w = jax.ShapeDtypeStruct((case.layers, kinds.out, kinds.fan_in), STORED)
    yield from svd_programs(w)
    yield from refinement_programs(w)
    _, _, v, kept = svd_shapes(w)
    if streamed:
        yield streaming_programs(v, kept)[-1]
    else:
        yield training_together(v, kept, len(kinds.names))
    yield prediction_programs(w.shape, w.dtype, Lesa())[-1]


def training_together(v: jax.ShapeDtypeStruct, kept: jax.ShapeDtypeStruct, count: int) -> Ahead:
    """The training of `count` predictors in one loop, as `learn_together` has it."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    order, used = jax.eval_shape(lambda key, kept: sample_order(key, kept, v.shape[0], PUBLISHED), key, kept)
    one = param_shapes(v.shape[2], PUBLISHED), v, order, used
    arrays = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), one)
    together = jax.vmap(partial(train, norm_weight=PUBLISHED.norm_weight, settings=PUBLISHED))
    return Ahead(TRAINING, jax.jit(together), arrays)


def compile_kinds(target_name: str, case: Case, kinds: Kinds) -> dict[str, Any]:
    """Memory and kernels of each program; a refusal's words where there is no memory."""
    prepare_compilers()
    target = parse_target(target_name)
    sharding = NamedSharding(Mesh(np.array(target_devices(target)[:1]), "x"), P())
    rows = 4 * case.layers * kinds.out * kinds.fan_in
    streamed = rows > int(target.chip.memory) // 4  # as `growth.matrices.batch_bytes` has it
    together = 1 if streamed else max(1, min(len(kinds.names), int(target.chip.memory) // 4 // rows))
    found = []
    for program in programs(case, Kinds(kinds.names[:together], kinds.out, kinds.fan_in), streamed):
        print(f"{target_name}, {case.name}, {', '.join(kinds.names)}: {program.name} ...", flush=True)
        args = jax.tree.map(partial(on_device, sharding), program.args)
        compiled = compile_lowered(program.function.lower(*args), target)
        runs = launches(compiled.program) if compiled.program.bodies else None
        # Rows that lie on the device meanwhile; the training's are among its own arguments.
        beside = 0 if streamed or program.name == TRAINING else together * rows
        total = None if compiled.total is None else compiled.total + beside
        found.append({"program": program.name, "bytes": total, "limit": target.chip.memory, "launches": runs})
    return {"programs": found, "streamed": streamed, "together": together}


def on_device(sharding: NamedSharding, x: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) if isinstance(x, jax.ShapeDtypeStruct) else x


HEAD = (
    "# LESA's programs, compiled for hardware that is not here",
    "",
    f"`experiments/bench/compile_expansion.py`, jax {jax.__version__}, by the compilers of libtpu 0.0.42.1 and CUDA "
    "12.9. Layers come one by one, in bfloat16. Rows V of all layers are on the device, and counted in every program's "
    "GiB, where they take no more than a quarter of its memory, of as many kinds of one shape as do; these train "
    "together. Others stay on the host, and one predictor is trained on batches from there. Launches: kernels and "
    "copies that a run of the program starts, loops turn by turn; in brackets those of one step of the predictors. "
    "Eigenvectors are one call of a library on a GPU.",
    "",
    "| model | target | kinds: [layers, out, in] | rows | program | GiB | fits | launches |",
    "|---|---|---|---|---|---|---|---|",
)


def row(target: str, case: Case, kinds: Kinds, report: dict[str, Any], found: dict[str, Any]) -> str:
    total, runs = found["bytes"], found["launches"]
    fits = "no" if total is None or total > found["limit"] else "yes"
    size = "?" if total is None else f"{total / 2**30:.1f} of {found['limit'] / 2**30:.1f}"
    shape = f"{', '.join(kinds.names)}: [{case.layers}, {kinds.out}, {kinds.fan_in}]"
    where = "host" if report["streamed"] else f"device, {report['together']} kinds"
    counted = "-" if runs is None else f"{runs:,}"
    if runs is not None and found["program"] == TRAINING and not report["streamed"]:
        counted += f" ({runs / kinds.steps(case.layers):.1f})"
    return f"| {case.name} | {target} | {shape} | {where} | {found['program']} | {size} | {fits} | {counted} |"


if __name__ == "__main__":
    main(tyro.cli(Settings))
