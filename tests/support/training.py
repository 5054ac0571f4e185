"""What the tests of training share: a small grown model with a tokenizer, a text, and runs of the command."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from lesa_jax.demo import MODEL_DIRECTORY
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from tests.support.devices import environment_of

OPTIONS = [
    "--sequence-length",
    "32",
    "--batch-size",
    "8",
    "--steps",
    "6",
    "--learning-rate",
    "1e-2",
    "--eval-every",
    "3",
]


def grown_model(folder: Path) -> Path:
    """A random llama with the demo's tokenizer, 4 layers grown to 6; its heads divide by 8."""
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=4096,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    hf.LlamaForCausalLM(config).save_pretrained(folder / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "base" / name).write_bytes((MODEL_DIRECTORY / name).read_bytes())
    expand(ExpandSettings(str(folder / "base"), folder / "grown", method="duplicate", gaps="1,2"))
    return folder / "grown"


def write_text(path: Path, lines: int = 400) -> Path:
    """Documents of different lengths."""
    records = [{"text": f"def f{i}(x):\n    return x + {i}\n" * (1 + i % 7)} for i in range(lines)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def start(*arguments: str, devices: int = 1, **environment: str) -> subprocess.Popen:
    """`python -m lesa_jax.train` on so many virtual CPU devices."""
    env = environment_of(devices, **environment)
    command = [sys.executable, "-m", "lesa_jax.train", *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen, expected: int = 0) -> str:
    """Waits for the end; stdout, or stderr where an error is expected."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == expected, f"{out}\n{err}"
    return err if expected else out


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in rows(run) if row["step"] > 0]
