"""What an expansion is expected to take, against what it takes; and that a limit changes no byte of the result."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers as hf

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.growth.job import ExpandJob, prepare_jobs
from lesa_jax.growth.settings import ExpandSettings
from tests.support.growth import QUICK, grow
from tests.support.tiny import tiny


def job(model: Path, output: Path, **options) -> ExpandJob:
    [prepared] = prepare_jobs([ExpandSettings(str(model), output, **options)], open_checkpoint(model))
    if isinstance(prepared, InputError):
        raise prepared
    return prepared


LONG = [
    pytest.param(method, rank, marks=pytest.mark.slow)
    for method, rank in (("lesa", 5), ("lesa_raw", None), ("random", None), ("opt_deus", None))
]


@pytest.mark.parametrize(("method", "rank"), [("lesa", None), ("average", None), *LONG])
def test_the_same_bytes_whatever_the_memory(tmp_path, method, rank):
    """The least that is enough sends all that is kept of a kind to the disk."""
    model = tiny("llama")
    options: dict[str, Any] = {"gaps": "1,3,3"} if method != "opt_deus" else {"gaps": "1,3"}
    if rank is not None:
        options["predictor"] = replace(QUICK["predictor"], rank=rank)
    plan = job(model, tmp_path / "plan", method=method, memory="8GB", **options).memory
    least = 8_000_000_000 - plan.room
    assert job(model, tmp_path / "plan", method=method, memory=str(least), **options).memory.scratch > 0
    found = []
    for number, memory in enumerate((str(least), str(least + 1_000_000), "8GB", None)):
        output = tmp_path / str(number)
        grow(model, output, method, memory=memory, **options)
        found.append((output / "model.safetensors").read_bytes())
    assert len(set(found)) == 1


def test_too_little_memory_is_refused_with_what_is_needed(tmp_path):
    with pytest.raises(InputError, match=r"take at least 0\.\d\d GB of memory to compute, --memory is 100MB; take a"):
        job(tiny("llama"), tmp_path / "out", method="average", memory="100MB")
    with pytest.raises(InputError, match="--memory lots: expected an amount of memory, such as 500MB or 16GB"):
        job(tiny("llama"), tmp_path / "out", method="lesa", memory="lots")


def test_copies_need_none(tmp_path):
    plan = job(tiny("llama"), tmp_path / "out", method="solar", memory="1MB").memory
    assert (plan.peak, plan.scratch) == (0, 0)


MEASURE = """
import sys, threading, time
from pathlib import Path
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.planning.methods import PredictorSettings
peak = 0
def watch():
    global peak
    while True:
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = max(peak, *(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")))
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
options = {"memory": sys.argv[3] or None, "predictor": PredictorSettings(epochs=1)}
result = expand(ExpandSettings(sys.argv[1], Path(sys.argv[2]), method="lesa", layers=8, **options))
print(peak, result.estimated_memory, result.scratch)
"""


@pytest.mark.slow
def test_memory_is_what_was_predicted(tmp_path):
    """Within a quarter: with rows in memory, and on the disk. With a lower rank the program itself is most of it."""
    shape = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 6, "num_attention_heads": 8}
    hf.LlamaForCausalLM(hf.LlamaConfig(**shape, vocab_size=64)).save_pretrained(tmp_path / "model")
    for memory in ("", "650MB"):
        command = [sys.executable, "-c", MEASURE, str(tmp_path / "model"), str(tmp_path / f"out{memory}"), memory]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peak, predicted, scratch = map(int, done.stdout.split()[-3:])
        assert peak == pytest.approx(predicted, rel=0.25)
        assert (scratch > 0) == bool(memory)
