"""What an expansion is expected to take, against what it takes; and that a limit changes no byte of the result."""

from pathlib import Path

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.growth.job import ExpandJob, prepare_jobs
from lesa_jax.growth.settings import ExpandSettings
from tests.support.growth import grow
from tests.support.tiny import tiny


def job(model: Path, output: Path, **options) -> ExpandJob:
    [prepared] = prepare_jobs([ExpandSettings(str(model), output, **options)], open_checkpoint(model))
    if isinstance(prepared, InputError):
        raise prepared
    return prepared


@pytest.mark.parametrize("method", ["lesa", "lesa_raw", "average", "random", "opt_deus"])
def test_the_same_bytes_whatever_the_memory(tmp_path, method):
    """The least that is enough sends all that is kept of a kind to the disk."""
    model = tiny("llama")
    options = {"gaps": "1,3,3"} if method != "opt_deus" else {"gaps": "1,3"}
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
