"""A small step compiled by the compilers of a TPU slice and of a GPU: what is sent, which kernels run, what it needs.

Figures are kept in compiled_steps.json; `python -m tests.training.test_targets` writes them anew, for a change that
means to change them.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lesa_jax.base.files import write_json
from lesa_jax.parallel.targets import COMPILERS, MODULES, installed, parse_target
from lesa_jax.planning.placement import make_plan
from lesa_jax.planning.record import FILE, Growth

KEPT = Path(__file__).with_name("compiled_steps.json")
TARGETS = ("v5e:2x2", "h100", "h100x8")
ROOM = 0.02  # of the bytes, between one compilation and another
CONFIG = {
    "model_type": "llama",
    "vocab_size": 1024,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}


def compiled(target: str, folder: Path) -> dict:
    plan = make_plan(4, "llama_pro", layers=6)
    write_json(folder / "config.json", CONFIG | {"num_hidden_layers": plan.layers})
    growth = Growth("llama_pro", plan, {}, {}, {"parameters": {"before": 0, "after": 0}})
    write_json(folder / FILE, growth.to_json())
    report = report_of(target, folder, ["--model", str(folder)])
    sent = {kind: [found["places"], found["count"]] for kind, found in report["collectives"].items()}
    return {"bytes": report["bytes"], "sent": sent, "kernels": report["kernels"]}


def report_of(target: str, folder: Path, model: list[str]) -> dict:
    options = ["--compile-for", target, "--batch-size", "16", "--sequence-length", "512", "--remat", "full"]
    command = [sys.executable, "-m", "lesa_jax.train", *model, *options, "--report", str(folder / "report.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "report.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_step_is_what_it_was(tmp_path, target):
    platform = parse_target(target).chip.platform
    if not installed(MODULES[platform]):
        pytest.skip(f"the compiler is not installed: {COMPILERS[platform]}")
    found, kept = compiled(target, tmp_path), json.loads(KEPT.read_text())[target]
    assert found["kernels"] == kept["kernels"]
    assert found["sent"] == kept["sent"]
    assert found["bytes"]["total"] <= (1 + ROOM) * kept["bytes"]["total"]


@pytest.mark.slow
def test_layers_of_different_sizes_need_no_more_memory_than_layers_that_are_alike(tmp_path):
    if not installed(MODULES["gpu"]):
        pytest.skip(f"the compiler is not installed: {COMPILERS['gpu']}")
    totals = {}
    for profile in ("isotropic", "crown"):
        folder = tmp_path / profile
        folder.mkdir()
        write_json(folder / "config.json", CONFIG | {"num_hidden_layers": 8, "ffn_dim_divisor": 16})
        fresh = ["--init", "random", "--config", str(folder / "config.json"), "--train", "all"]
        totals[profile] = report_of("h100", folder, [*fresh, "--profile", profile])["bytes"]["total"]
    assert totals["crown"] < 1.3 * totals["isotropic"]


def main() -> None:
    figures = {}
    for target in TARGETS:
        with TemporaryDirectory() as folder:
            figures[target] = compiled(target, Path(folder))
    write_json(KEPT, figures)


if __name__ == "__main__":
    main()
