"""Which model, batch and hardware go together, by the compilers of TPUs and GPUs: a table of `train --compile-for`.

Command:   python experiments/bench/compile_targets.py
Run time:  half a minute for each case on GPUs, three to ten minutes on TPUs, on one core. Needs the compilers:
           pip install -r requirements-compilers.txt
           Stopped, it goes on when the command is given again; --output is where its cases are kept.
Expected:  experiments/results/compile_targets.md. Every case fits but those whose row says by how much they do not.

Models are described by their config.json alone, grown by half, new layers on top. Nothing runs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import tyro
from compile_cases import reported, write_table
from device_train import LLAMA_8B

from lesa_jax.base.files import write_json
from lesa_jax.parallel.targets import parse_target, prepare_compilers, target_devices
from lesa_jax.planning.config import grow_config
from lesa_jax.planning.placement import make_plan
from lesa_jax.planning.plan import Plan
from lesa_jax.planning.record import FILE, Growth
from lesa_jax.training.compiled import compiled_step
from lesa_jax.training.settings import TrainSettings

LLAMA_70B = LLAMA_8B | {  # meta-llama/Meta-Llama-3-70B
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}
MIXTRAL = {  # mistralai/Mixtral-8x7B-v0.1
    "model_type": "mixtral",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "router_aux_loss_coef": 0.02,
    "tie_word_embeddings": False,
}
MODELS = {"Llama-3-8B": LLAMA_8B, "Llama-3-70B": LLAMA_70B, "Mixtral-8x7B": MIXTRAL}


@dataclass(frozen=True)
class Case:
    """One row of the table; `options` are those of `lesa_jax.train` beside these."""

    model: str
    target: str
    sequences: int
    length: int
    train: str = "new"
    options: tuple[str, ...] = ("--remat", "full")

    @property
    def name(self) -> str:
        more = "".join(self.options).replace("-", "").replace("=", "").replace(",", "")
        return f"{self.model}-{self.target.replace(':', '_')}-{self.sequences}x{self.length}-{self.train}-{more}"


LEAN = ("--remat", "full", "--moments", "bfloat16")
PARTS = ("--remat", "full", "--accumulate", "16")  # 4M tokens a step
CASES = (
    Case("Llama-3-8B", "h100", 4, 4096),
    Case("Llama-3-8B", "h100", 4, 4096, options=LEAN),
    Case("Llama-3-8B", "h100x8", 8, 4096),
    Case("Llama-3-8B", "h100x8", 8, 4096, "all"),
    Case("Llama-3-8B", "h100x64", 256, 4096),
    Case("Llama-3-70B", "h100x64", 1024, 4096, options=PARTS),
    Case("Llama-3-70B", "h100x64", 1024, 4096, options=("--remat", "full", "--accumulate", "4")),
    Case("Llama-3-70B", "h100x64", 1024, 4096, "all", ("--remat", "full", "--accumulate", "8")),
    Case("Mixtral-8x7B", "h100x8", 8, 4096, options=("--remat", "full", "--mesh", "expert=8")),
    Case("Llama-3-8B", "v5e:4x4", 16, 4096),
    Case("Llama-3-8B", "v6e:4x4", 16, 4096),
    Case("Llama-3-70B", "v5p:4x4x4", 1024, 4096, options=PARTS),
    Case("Llama-3-70B", "v5p:4x4x4", 1024, 4096, "all", PARTS),
    Case("Llama-3-8B", "v5e:16x16", 256, 4096),
    Case("Mixtral-8x7B", "v5e:16x16", 256, 4096),
)


@dataclass(frozen=True)
class Settings:
    """What to compile."""

    output: Path = Path("build/targets")
    """Described models, and the report of every case that is done."""
    only: str = ""
    """Cases whose name has this in it."""
    results: Path = Path(__file__).parents[1] / "results"
    scripts: Path = Path(__file__).parents[2] / "tpu_scripts" / "README.md"
    """A page whose table of what fits is written anew."""


def main(settings: Settings) -> None:
    reports = {}
    for case in CASES:
        file, wanted = settings.output / f"{case.name}.json", settings.only in case.name
        report = reported(file, wanted, compile_case, case, settings.output / "models")
        if report is not None:
            reports[case] = report
    rows = [row(case, report) for case, report in reports.items()]
    write_table(settings.results / "compile_targets.md", [*HEAD, *rows])
    slices = [slice_row(case, report) for case, report in reports.items() if report["fits"]]
    settings.scripts.write_text(between(settings.scripts.read_text(), [*SLICES, *slices]))


def described(place: Path, config: Mapping[str, Any], plan: Plan) -> Path:
    """A folder that says what a grown model is, without weights."""
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / "config.json", grow_config(config, plan))
    growth = Growth("llama_pro", plan, {}, {}, {"parameters": {"before": 0, "after": 0}})
    write_json(place / FILE, growth.to_json())
    return place


def compile_case(case: Case, folder: Path) -> dict[str, Any]:
    config = MODELS[case.model]
    depth = config["num_hidden_layers"]
    plan = make_plan(depth, "llama_pro", layers=depth * 3 // 2, placement="top")
    model = described(folder / case.model, config, plan)
    batch = ["--batch-size", str(case.sequences), "--sequence-length", str(case.length)]
    return compile_step(case.target, ["--model", str(model), *batch, "--train", case.train, *case.options])


def compile_step(target_name: str, options: Sequence[str]) -> dict[str, Any]:
    """What `lesa_jax.train --compile-for TARGET --report` says, without the search for the largest batch."""
    prepare_compilers()
    target = parse_target(target_name)
    args = ["--compile-for", target_name, *options]
    settings = tyro.cli(TrainSettings, args=args, config=(tyro.conf.OmitArgPrefixes,))
    return compiled_step(settings, target, target_devices(target)).to_json()


HEAD = (
    "# Steps compiled for hardware that is not here",
    "",
    f"`experiments/bench/compile_targets.py`, jax {jax.__version__}, by the compilers of libtpu 0.0.42.1 and CUDA "
    "12.9. Models grown by half, new layers on top (Llama-3-8B: 32 -> 48); trained: new layers, or all. Memory and "
    "sends are of one chip, sends in a step. A step takes at least the largest of three times: its operations at the "
    "data sheet's rate, what it must move between chip and memory, and what it sends. Compile times are one "
    "core's, which may have had other work.",
    "",
    "| model | target | tokens a step | trained | GiB a chip | fits | sent: gathered, scattered, summed, all-to-all | "
    "attention | at least, ms: operations, memory, network | compiled in s |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def row(case: Case, report: dict[str, Any]) -> str:
    sizes, floors = report["bytes"], report["floor_seconds"]
    total = "?" if sizes["total"] is None else f"{sizes['total'] / 2**30:.1f}"
    sent = " ".join(gib(report["collectives"].get(kind)) for kind in SENT)
    kernels = [name for name in report["kernels"] if any(word in name for word in ATTENTION)]
    least = ", ".join(f"{1e3 * floors[name]:.0f}" for name in ("compute", "memory", "network"))
    options = " ".join(case.options).replace("--", "")
    return (
        f"| {case.model} | {case.target} | {case.sequences} x {case.length} | {case.train}; {options} | "
        f"{total} of {sizes['limit'] / 2**30:.1f} | {'yes' if report['fits'] else 'no'} | {sent} | "
        f"{', '.join(kernels) or 'XLA'} | {least} | {report['compile_seconds']:.0f} |"
    )


ATTENTION = ("fmha", "splash")  # by which one knows the kernels that compute it
SENT = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all")


def gib(kind: dict[str, float] | None) -> str:
    return "-" if kind is None else f"{kind['bytes'] / 2**30:.2f} ({kind['count']:.0f})"


BEGIN, END = "<!-- written by experiments/bench/compile_targets.py -->", "<!-- to here -->"
SLICES = (
    "| model | on | options | GiB a chip | tokens/s at most |",
    "|---|---|---|---|---|",
)


def slice_row(case: Case, report: dict[str, Any]) -> str:
    """What someone who rents hardware asks: which, how, and what comes of it at best."""
    options = f"--batch-size {case.sequences} --sequence-length {case.length} --train {case.train}"
    options += " ".join(("", *case.options))
    most = report["tokens"] / max(report["floor_seconds"].values())
    room = f"{report['bytes']['total'] / 2**30:.1f} of {report['bytes']['limit'] / 2**30:.1f}"
    return f"| {case.model} | {rented(case.target)} | `{options}` | {room} | {most:,.0f} |"


def rented(target: str) -> str:
    """What the scripts, and who rents out, call a target."""
    if target.startswith("h100"):
        number = int(target.removeprefix("h100").removeprefix("x") or 1)
        return f"{number} x H100" if number <= 8 else f"{number // 8} nodes of 8 x H100"
    kind, _, topology = target.partition(":")
    chips = math.prod(int(side) for side in topology.split("x"))
    return {"v5e": f"v5litepod-{chips}", "v5p": f"v5p-{2 * chips}", "v6e": f"v6e-{chips}"}[kind]


def between(page: str, lines: Sequence[str]) -> str:
    """A page with other lines between its two marks."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return "\n".join([before + BEGIN, *lines, END + after])


if __name__ == "__main__":
    main(tyro.cli(Settings))
