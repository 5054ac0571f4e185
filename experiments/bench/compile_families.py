"""Kinds of layer beyond Llama's by the compilers of a GPU and a TPU: which kernels run, and what is sent and kept.

Command:   python experiments/bench/compile_families.py
Run time:  half an hour on one core. Needs the compilers: pip install -r requirements-compilers.txt
           Stopped, it goes on when the command is given again; --output is where its cases are kept.
Expected:  experiments/results/compile_families.md: every case compiles, on one H100 and on four TPU v5e.

Models of 6 to 9 layers with a real model's heads, experts and windows, grown by half.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import tyro
from compile_cases import reported, write_table
from compile_targets import SENT, compile_step, described
from tokenizers import Tokenizer, models
from transformers import AutoConfig, PreTrainedTokenizerFast

from lesa_jax.planning.placement import make_plan

TOKENS, SEQUENCES = 1024, 8
COMMON = {
    "vocab_size": 32000,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "max_position_embeddings": 4096,
}
EXPERTS = {"moe_intermediate_size": 512, "num_experts_per_tok": 2}
SOURCES = {"vocab_size": 32000, "d_model": 1024, "decoder_start_token_id": 0, "n_positions": 1024}


@dataclass(frozen=True)
class Family:
    """A model type of transformers, what is unlike Llama in it, and entries of its config.json."""

    model_type: str
    unlike: str
    entries: Mapping[str, Any]


FAMILIES = (
    Family("mistral", "a sliding window", COMMON | {"sliding_window": 256}),
    Family("qwen3", "norms of queries and keys", COMMON),
    Family("gemma2", "soft caps, every other layer's window", COMMON | {"sliding_window": 256}),
    Family("gemma3_text", "windows five to one, heads of 256", COMMON | {"sliding_window": 256, "head_dim": 256}),
    Family("qwen3_moe", "16 experts, 2 of them chosen", COMMON | EXPERTS | {"num_experts": 16}),
    Family(
        "deepseek_v3",
        "latent attention, 16 experts and a shared one, the first layer dense",
        COMMON
        | EXPERTS
        | {
            "num_key_value_heads": 8,
            "q_lora_rank": 384,
            "kv_lora_rank": 128,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "n_routed_experts": 16,
            "n_group": 4,
            "topk_group": 2,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
        },
    ),
    Family("t5", "an encoder, biases by distance", SOURCES | {"d_ff": 2816, "d_kv": 64, "num_heads": 16}),
    Family(
        "bart",
        "an encoder, norms after the sum",
        SOURCES | {"encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096, "encoder_layers": 6, "decoder_layers": 6},
    ),
)
TARGETS = ("h100", "v5e:2x2")


@dataclass(frozen=True)
class Settings:
    """What to compile."""

    output: Path = Path("build/families")
    """Described models, and the report of every case that is done."""
    only: str = ""
    """Cases whose name, as in t5-h100, has this in it."""
    results: Path = Path(__file__).parents[1] / "results"


def main(settings: Settings) -> None:
    rows = []
    for target in TARGETS:
        for family in FAMILIES:
            name = f"{family.model_type}-{target.replace(':', '_')}"
            file, wanted = settings.output / f"{name}.json", settings.only in name
            report = reported(file, wanted, compile_family, target, family, settings.output / "models")
            if report is not None:
                rows.append(row(family, report))
    write_table(settings.results / "compile_families.md", [*HEAD, *rows])


def compile_family(target: str, family: Family, folder: Path) -> dict[str, Any]:
    options = ["--batch-size", str(SEQUENCES), "--sequence-length", str(TOKENS), "--remat", "full"]
    return compile_step(target, ["--model", str(describe(folder, family)), *options])


def describe(folder: Path, family: Family) -> Path:
    """A folder that says what the grown model is, without weights; an encoder-decoder's tokenizer, too."""
    place = folder / family.model_type
    config = AutoConfig.for_model(family.model_type, **family.entries).to_dict()
    plan = make_plan(6, "llama_pro", layers=9)
    if config["is_encoder_decoder"]:
        plan = replace(plan, encoder=plan)
        sentinels().save_pretrained(place)
    return described(place, config, plan)


def sentinels() -> PreTrainedTokenizerFast:
    """A tokenizer of nothing but what T5's span corruption stands for spans."""
    words = {"<eos>": 0, "<unk>": 1} | {f"<extra_id_{number}>": number + 2 for number in range(100)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")


HEAD = (
    "# Kinds of layer, compiled for hardware that is not here",
    "",
    f"`experiments/bench/compile_families.py`, jax {jax.__version__}, by the compilers of libtpu 0.0.42.1 and CUDA "
    f"12.9. Models of 6 layers of width 1024 grown to 9, new layers trained, `--remat full`, {SEQUENCES} x {TOKENS} "
    "tokens a step. Where no kernel computes attention the reason is given: `train` says the same when it begins. "
    "Sends are MiB of one chip in a step, with how often.",
    "",
    "| family | unlike Llama | target | attention and other kernels | GiB a chip | gathered, scattered, summed, "
    "all-to-all, passed on | compiled in s |",
    "|---|---|---|---|---|---|---|",
)


def row(family: Family, report: dict[str, Any]) -> str:
    runs = ", ".join(f"{name} x {times}" for name, times in report["kernels"].items()) or "none"
    words = runs if report["no_kernel"] is None else f"{runs} ({report['no_kernel']})"
    kinds = (report["collectives"].get(kind) for kind in (*SENT, "collective-permute"))
    sent = " ".join("-" if kind is None else f"{kind['bytes'] / 2**20:.1f} ({kind['count']:.0f})" for kind in kinds)
    return (
        f"| {family.model_type} | {family.unlike} | {report['target']} | {words} | "
        f"{report['bytes']['total'] / 2**30:.2f} | {sent} | {report['compile_seconds']:.0f} |"
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
