"""A run's folder: whose it is, what the run in it was begun with, and that no two work in it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lesa_jax.base.digests import digest
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import write_json
from lesa_jax.training.folder import LOCK, NAMES, begin_run, check_run, earlier_run, hold_run, settings_of
from lesa_jax.training.job import TrainJob, make_train_job
from tests.support.settings import train_settings

INPUTS = {name: f"digest of {name}" for name in NAMES} | {"weights": {"model.safetensors": "abc"}}
HOLDER = """
import sys, time
from pathlib import Path
from lesa_jax.base.locks import alone
with alone(Path(sys.argv[1]), "never"):
    print("held", flush=True)
    time.sleep(600)
"""


def job_of(place: Path, folder: Path, name: str = "run", **changes: Any) -> TrainJob:
    files = {"model": str(place / "grown"), "data": str(place / "data.jsonl"), "eval_text": None}
    return make_train_job(train_settings(folder, name, **(files | changes)))


def begin(job: TrainJob, **changes: Any) -> str:
    with hold_run(job):
        return begin_run(job, lambda: INPUTS | changes)


def test_a_run_goes_on_with_free_settings_changed(place, tmp_path):
    record = begin(job_of(place, tmp_path))
    kept = json.loads((tmp_path / "run" / "run.json").read_text())
    assert list(kept) == ["identity", "settings", "inputs"]
    assert digest(kept) == record
    changes = {"mesh": "data=1", "accumulate": 2, "remat": "full", "save_every": 7, "keep": 9, "eval_every": 5}
    assert begin(job_of(place, tmp_path, **changes)) == record


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", ["another", None])
def test_each_other_input_is_refused_by_name(place, tmp_path, name, other):
    begin(job_of(place, tmp_path))
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(InputError, match="its run was begun with another ") as caught:
        begin(job_of(place, tmp_path), **{name: other})
    assert NAMES[name] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "run" / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "value"), [("learning_rate", 0.02), ("betas", [0.9, 0.99]), ("warmup", 3), ("dtype", "bfloat16")]
)
def test_other_settings_are_refused_by_name(place, tmp_path, name, value):
    job = job_of(place, tmp_path)
    (tmp_path / "run").mkdir()
    record = {"identity": job.identity, "settings": settings_of(job) | {name: value}, "inputs": INPUTS}
    write_json(tmp_path / "run" / "run.json", record)
    with pytest.raises(InputError, match="its run has ") as caught:
        check_run(job)
    assert f"{name}={value}, now it is" in str(caught.value)
    write_json(tmp_path / "run" / "run.json", record | {"identity": "another"})
    with pytest.raises(InputError, match="another model, plan or --train"):
        check_run(job)


def test_a_length_in_tokens_is_kept_as_steps(place, tmp_path):
    kept = settings_of(job_of(place, tmp_path, steps=None, tokens="2K"))
    assert kept["steps"] == 2000 // 256
    assert "tokens" not in kept


DAMAGED = [
    {}, {"identity": "x"}, {"identity": ["x"], "settings": {}, "inputs": {}},
    {"identity": "x", "settings": [], "inputs": {}}, {"identity": "x", "settings": {}, "inputs": None},
]  # fmt: skip


@pytest.mark.parametrize("record", [*DAMAGED, [1, 2], "text", None])
def test_a_damaged_record_is_refused_in_one_line(place, tmp_path, record):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"run\.json: ") as caught:
        begin(job_of(place, tmp_path))
    assert "\n" not in str(caught.value)


def test_a_folder_that_failed_before_it_began_is_free(place, tmp_path):
    """Tokens may be there by then, and the lock is."""
    with hold_run(job_of(place, tmp_path)):
        (tmp_path / "run" / "tokens").mkdir()
    assert earlier_run(job_of(place, tmp_path)) is None
    begin(job_of(place, tmp_path, learning_rate=0.5))


def test_the_second_process_is_refused_at_once(place, tmp_path):
    job = job_of(place, tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).touch()
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run" / LOCK)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process trains there"):
            begin(job)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]
    finally:
        holder.kill()
        holder.communicate()
    begin(job)


@pytest.mark.parametrize("name", ["x" * 256, "/dev/null/run", "/proc/run", "a/" * 2500])
def test_an_output_that_cannot_be_made_is_refused_in_one_line(place, tmp_path, name):
    with pytest.raises(InputError, match="--output .*: cannot be ") as caught:
        begin(job_of(place, tmp_path, name))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_without_permission_is_refused_in_one_line(place, tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match="cannot be written to"):
        begin(job_of(place, tmp_path))


@pytest.mark.parametrize("name", ["x" * 255, "[red]run[/red] [bold", "ü 'run' \\"])
def test_any_name_that_the_disk_takes_is_good(place, tmp_path, name):
    begin(job_of(place, tmp_path, name))
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["run.json", LOCK]
