"""LESA on a checkpoint of a real model's shape, under a limit of memory: time by stage against floors, memory against
what was predicted, and what a model of full depth would take.

Command:   python experiments/bench/make_checkpoint.py --like llama-3-8b --layers 8 --output build/8b
           sudo python experiments/bench/bench_scale.py --model build/8b --layers 12 --full 32 --limit 6GB
Run time:  half an hour to an hour on 2 CPU cores; 10 GB of disk. The limit is that of a control group, which needs the
           right to make one; without --limit nothing is limited.
Expected:  completes; memory within 25 % of the prediction. experiments/results/bench_scale.md has the last run,
           bench_scale_rank.md one with --rank 1024 and --limit 4GB, which takes 8 minutes, bench_scale_70b.md one of
           --like llama-3-70b with --rank 1024, --full 80 and --limit 12GB, for which the disk has 45 GB.

The floor of a stage is its matrix products, its eigendecompositions and what AdamW reads and writes, each at the rate
that is measured here beforehand (`lesa_floors`). What the SVD does besides where small singular values want a second
eigendecomposition, as real models' do, is no part of the floor.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tyro
from bench_report import write_report
from lesa_floors import lesa_floors, measure_rates
from processes import expansion, watched

from lesa_jax.base.settings import replaced
from lesa_jax.base.units import format_bytes, parse_bytes
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.growth.job import ExpandJob, prepare_jobs
from lesa_jax.growth.settings import ExpandSettings


@dataclass(frozen=True)
class Settings:
    """What to run."""

    model: Path
    """As `make_checkpoint.py` writes it."""
    layers: int
    """To grow it to."""
    full: int
    """Depth of the real model, to which the times are extended."""
    limit: str | None = None
    """Of a control group that the process runs in, cached files included."""
    memory: str | None = None
    """`--memory` of the expansion."""
    rank: int | None = None
    """`--rank` of the expansion."""
    output: Path = Path("experiments/results/bench_scale.md")


def main(settings: Settings) -> None:
    grown = settings.model.with_name(f"{settings.model.name}-grown")
    shutil.rmtree(grown, ignore_errors=True)
    options = {
        "model": str(settings.model),
        "output": grown,
        "method": "lesa",
        "layers": settings.layers,
        "memory": settings.memory,
        "rank": settings.rank,
    }
    [job] = prepare_jobs([replaced(ExpandSettings(), options)], open_checkpoint(settings.model))
    assert isinstance(job, ExpandJob)
    rates, shapes = measure_rates(), [kind.shape[1:] for kind in job.computed]
    with control_group(settings.limit) as group:
        command = expansion(**options)
        if group is not None:
            command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"), *command]
        run = watched(command)
    result = json.loads(run.output.splitlines()[-1])
    layers = job.plan.source_layers
    here, there = (lesa_floors(shapes, depth, rates, settings.rank) for depth in (layers, settings.full))
    rows, total = [], 0.0
    for name, seconds in result["seconds"].items():
        floor = here.get(name)
        extended = seconds * (there[name] / floor if floor else settings.full / layers)
        total += extended
        rows.append(
            (
                name,
                f"{seconds:.0f}",
                f"{floor:.0f}" if floor else "",
                f"{floor / seconds:.0%}" if floor else "",
                f"{extended:.0f}",
            )
        )
    rows.append(("whole process", f"{run.seconds:.0f}", "", "", f"{total:.0f}"))
    limit = "no limit" if settings.limit is None else f"a control group of {settings.limit}"
    rank = "all directions" if settings.rank is None else f"--rank {settings.rank}"
    what = (
        f"{settings.model.name}, {layers} -> {settings.layers} layers, {rank}, under {limit}; anonymous memory "
        f"{format_bytes(run.peak)} at its peak, {format_bytes(result['memory'])} predicted, "
        f"{format_bytes(result['scratch'])} of scratch; {rates}"
    )
    header = ("stage", "s", "floor, s", "share", f"{settings.full} layers, s")
    write_report(settings.output, "experiments/bench/bench_scale.py", ("jax", "numpy", "scipy"), what, header, rows)
    shutil.rmtree(grown)


@contextmanager
def control_group(limit: str | None) -> Iterator[Path | None]:
    """A group of version 2 or 1 that may have so much memory."""
    if limit is None:
        yield None
        return
    root = Path("/sys/fs/cgroup")
    first = (root / "memory").is_dir()
    group = (root / "memory" if first else root) / f"lesa_bench_{os.getpid()}"
    group.mkdir()
    try:
        file = group / ("memory.limit_in_bytes" if first else "memory.max")
        file.write_text(str(parse_bytes("--limit", limit)))
        yield group
    finally:
        group.rmdir()


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
