"""A comparison that goes on: with what it began with, after signals and kills, beside others, among a user's files."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import write_json
from lesa_jax.base.folders import MANIFEST
from lesa_jax.base.locks import among_others
from lesa_jax.base.settings import command_line
from lesa_jax.compare import print_comparison
from lesa_jax.comparison import grown, measure
from lesa_jax.comparison.folder import PRESENCE_LOCK
from lesa_jax.comparison.run import compare
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.planning import methods
from lesa_jax.training import loop
from tests.support.comparing import by_name, settings, training
from tests.support.comparisons import strict
from tests.support.settings import change

ONE_STEP = {"train_tokens": "256", "batch_size": 8}


@pytest.fixture
def mine(place: Path, tmp_path: Path) -> Path:
    """A folder like `place` whose files a test may change."""
    shutil.copytree(place / "base", tmp_path / "base")
    for name in ("eval.txt", "data.jsonl"):
        shutil.copy(place / name, tmp_path / name)
    return tmp_path


def flip(file: Path, at: int = -1) -> None:
    """Changes one byte; name, size, and as far as possible time stay."""
    data, stat = bytearray(file.read_bytes()), file.stat()
    data[at] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.slow
def test_changed_contents_under_the_same_paths_are_refused(mine):
    job = settings(mine, "out", methods="duplicate", **training(mine))
    job = change(job, **ONE_STEP, controls=False)
    first = compare(job)
    for file, message in (
        (mine / "eval.txt", "of another held-out text"),
        (mine / "data.jsonl", "of another training data"),
        (mine / "base" / "model.safetensors", r"of another model \(model.safetensors\)"),
        (mine / "base" / "tokenizer_config.json", r"of another model \(tokenizer_config.json\)"),
    ):
        before = file.read_bytes()
        flip(file, before.rindex(b"x"))
        with pytest.raises(InputError, match=message) as caught:
            compare(job)
        assert "\n" not in str(caught.value)
        file.write_bytes(before)
    assert compare(job) == first


def test_the_same_contents_elsewhere_go_on(mine, monkeypatch):
    job = settings(mine, "out", methods="duplicate", keep_models=True)
    first = compare(job)
    for name in ("base", "eval.txt"):
        (mine / name).rename(mine / f"moved-{name}")
    monkeypatch.setattr(measure, "evaluate", None)
    monkeypatch.setattr(grown, "grow", None)
    moved = change(job, model=str(mine / "moved-base"), text=mine / "moved-eval.txt")
    assert compare(moved).outcomes == first.outcomes


def test_a_change_in_the_middle_ends_it_and_keeps_nothing_of_it(mine, monkeypatch):
    job, original = settings(mine, "out", methods="duplicate"), measure.evaluate

    def evaluate(wanted):
        flip(mine / "base" / "model.safetensors")
        return original(wanted)

    monkeypatch.setattr(measure, "evaluate", evaluate)
    with pytest.raises(InputError, match="model.safetensors: changed during the comparison"):
        compare(job)
    assert not [*(job.output / "rows").glob("base-*.json")]


def test_a_method_whose_code_has_changed_is_measured_again(place, registry, monkeypatch):
    def register(factor):
        methods.METHODS.pop("mine", None)
        copies = methods.Method("", "", "top", lambda weights, gaps, key: factor * weights[np.array(gaps)])
        methods.register("mine", copies)

    job = settings(place, "code", methods="duplicate,mine", keep_models=True)
    register(1.0)
    first, measured, original = by_name(compare(job)), [], measure.evaluate

    def evaluate(wanted):
        measured.append(Path(wanted.model).name)
        return original(wanted)

    monkeypatch.setattr(measure, "evaluate", evaluate)
    register(0.5)
    second = by_name(compare(job))
    assert measured == ["mine-0"]
    assert first["mine"].initial != second["mine"].initial
    assert first["duplicate"] == second["duplicate"]
    assert first["base"] == second["base"]


@pytest.mark.slow
def test_so_it_is_trained_again(place, registry):
    def register(factor):
        methods.METHODS.pop("mine", None)
        copies = methods.Method("", "", "top", lambda weights, gaps, key: factor * weights[np.array(gaps)])
        methods.register("mine", copies)

    job = settings(place, "code-trained", methods="duplicate,mine", keep_models=True, **training(place))
    job = change(job, **ONE_STEP, controls=False)
    register(1.0)
    first = by_name(compare(job))
    register(0.5)
    second = by_name(compare(job))
    assert first["mine"].curves[0][-1].loss != second["mine"].curves[0][-1].loss
    assert str(first["duplicate"]) == str(second["duplicate"])  # NaN is not NaN


@pytest.mark.slow
def test_one_step_has_no_time_and_every_later_call_reads_that(place):
    """Every step is measured or is the last one, so that nobody knows how long a step takes."""
    job = change(settings(place, "one-step", methods="duplicate", **training(place)), **ONE_STEP, controls=False)
    first = compare(job)
    for file in [*(job.output / "rows").glob("*.json"), job.output / "table.json"]:
        strict(file.read_text())
    assert len(by_name(first)["duplicate"].curves[0]) == 2
    again = compare(job)
    assert str(again.outcomes) == str(first.outcomes)  # NaN is not NaN
    table = json.loads((job.output / "table.json").read_text())
    assert table[1]["perplexity"] > 0
    assert table[1]["seconds_to_base"] is None


def test_whatever_a_registered_method_raises_is_its_rows_error(place, registry, capsys):
    def broken(weights, gaps, key):
        raise RuntimeError(f"see {place}/secret/notes.txt")

    methods.register("broken", methods.Method("", "", "top", broken))
    job = settings(place, "raising", methods="broken,duplicate")
    found = compare(job)
    error = "method broken: its initialiser raised RuntimeError: see notes.txt"
    assert by_name(found)["broken"].error == error
    assert by_name(found)["duplicate"].error is None
    assert print_comparison(found) == 0
    for file in job.output.rglob("*"):
        if file.suffix in (".json", ".md", ".html"):
            assert str(place) not in file.read_text(), file
    assert "secret" not in capsys.readouterr().out
    alone = compare(settings(place, "raising", methods="broken"))
    assert print_comparison(alone) == 1
    assert error in capsys.readouterr().out


@pytest.mark.slow
def test_a_signal_after_the_last_step_ends_it_and_keeps_the_curve(place, monkeypatch, capsys):
    job = change(settings(place, "late", methods="duplicate", **training(place)), **ONE_STEP, controls=False)

    @contextmanager
    def stop_signal():
        asked = count()
        yield lambda: next(asked) > 0  # not before the only step, but after it

    monkeypatch.setattr(loop, "stop_signal", stop_signal)
    found = compare(job)
    assert found.stopped
    assert print_comparison(found) == 130
    assert [len(outcome.curves) for outcome in found.outcomes] == [1, 0]
    assert "training duplicate" not in capsys.readouterr().err
    monkeypatch.undo()
    assert not compare(job).stopped


def test_what_a_killed_process_left_goes_and_what_is_the_users_stays(place):
    job = settings(place, "killed", methods="duplicate", keep_models=True)
    compare(job)
    models = job.output / "models"
    (models / ".duplicate-0.partial").mkdir()
    write_json(models / ".duplicate-0.partial" / MANIFEST, {"files": {}})
    (models / ".duplicate-0.partial" / "model.safetensors").touch()
    (models / ".duplicate-0.lock").touch()
    (job.output / "rows" / ".duplicate-0.json.partial").touch()
    for users in (models / "notes.txt", models / ".hidden", job.output / "notes.txt"):
        users.write_text("mine")
    compare(change(job, keep_models=False))
    assert sorted(path.name for path in models.iterdir()) == [".hidden", "notes.txt"]
    assert (job.output / "notes.txt").exists()
    assert not [*(job.output / "rows").glob(".*.partial")]


def test_a_users_file_in_a_model_stays(place):
    job = settings(place, "notes", methods="duplicate", keep_models=True)
    compare(job)
    (job.output / "models" / "duplicate-0" / "notes.txt").write_text("mine")
    compare(change(job, keep_models=False))
    assert [path.name for path in (job.output / "models" / "duplicate-0").iterdir()] == ["notes.txt"]


def test_models_stay_while_another_process_is_there_and_go_with_the_last(place):
    job = settings(place, "beside", methods="duplicate")
    job.output.mkdir()
    with among_others(job.output / PRESENCE_LOCK):
        compare(job)
        assert (job.output / "models" / "duplicate-0").is_dir()
    compare(change(job, methods="llama_pro"))
    assert not (job.output / "models").exists()


def test_a_model_of_something_else_is_grown_again(place):
    """Of other settings, though it has the name and a growth.json."""
    job = settings(place, "swapped", methods="duplicate", keep_models=True)
    first = compare(job)
    (job.output / "rows" / "duplicate-0.json").unlink()
    shutil.rmtree(job.output / "models" / "duplicate-0")
    expand(ExpandSettings(str(place / "base"), job.output / "models" / "duplicate-0", method="duplicate", gaps="0"))
    assert compare(job).outcomes == first.outcomes


MOMENTS = {
    "growing": "models/.*.partial",
    "measuring": "rows/base-0.json",
    "tokenising": "runs/base-0/run.json",
    "training": "runs/base-0/metrics.jsonl",
    "later": "rows/base-0.curve.json",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "number"),
    [
        *((moment, signal.SIGTERM) for moment in MOMENTS),
        ("growing", signal.SIGKILL),
        ("training", signal.SIGKILL),
        ("measuring", signal.SIGINT),
    ],
)
def test_real_signals_end_it_wherever_it_is_and_it_goes_on(place, tmp_path, moment, number):
    job = settings(place, "unused", methods="llama_pro,duplicate", batch_size=8, **training(place))
    job = change(job, output=tmp_path / "out")
    command = [sys.executable, *shlex.split(command_line("-m lesa_jax.compare", job))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not [*job.output.glob(MOMENTS[moment])]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130), err
    if number != signal.SIGKILL:
        assert err.endswith("interrupted: run the same command again to go on\n")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "| duplicate |" in done.stdout
    assert not (job.output / "models").exists()
    assert not [path for path in job.output.rglob(".*") if "partial" in path.name]
