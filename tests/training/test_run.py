"""The training command, as a user runs it: what it writes, how it goes on."""

import itertools
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import transformers as hf

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint, read
from lesa_jax.evaluation.run import evaluate
from lesa_jax.evaluation.settings import EvaluateSettings
from lesa_jax.training import loop, parameters, run
from lesa_jax.training.run import train
from tests.support.settings import train_settings
from tests.support.training import OPTIONS, finish, losses, rows, start


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    """A run of six steps, for which no time is estimated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "estimate_seconds", None)
        train(train_settings(place, "finished"))
    return place / "finished"


def test_run_folder_has_everything(finished):
    assert [row["step"] for row in rows(finished)] == list(range(7))
    assert list(rows(finished)[1]) == [
        "step", "tokens", "loss", "eval_loss", "retain_loss", "grad_norm", "learning_rate", "tokens_per_second", "mfu",
    ]  # fmt: skip
    assert [row["step"] for row in rows(finished) if row["eval_loss"] is not None] == [0, 3, 6]
    assert [row["tokens"] for row in rows(finished)] == [256 * step for step in range(7)]
    assert (finished / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((finished / "tensorboard").iterdir())
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["4", "6"]


def test_it_learns(finished):
    assert losses(finished)[-1] < losses(finished)[0] - 0.1
    evaluated = [row["eval_loss"] for row in rows(finished) if row["eval_loss"] is not None]
    assert evaluated[-1] < evaluated[0]


def test_only_new_layers_change_and_transformers_would_read_the_result(place, finished):
    before, after = open_checkpoint(place / "grown"), open_checkpoint(finished / "final")
    assert before.entries.keys() == after.entries.keys()
    changed = {name for name in before.entries if read(before, name).tobytes() != read(after, name).tobytes()}
    new = {name for name in before.entries if name.startswith(("model.layers.2.", "model.layers.4."))}
    assert changed == new
    assert json.loads((finished / "final" / "growth.json").read_text())["new_layers"] == [2, 4]
    assert (finished / "final" / "tokenizer.json").exists()


def test_final_model_has_the_loss_that_training_reported(place, finished):
    measured = evaluate(EvaluateSettings(str(finished / "final"), text=place / "eval.txt", sequence_length=32))
    assert measured["nll"] == pytest.approx(rows(finished)[-1]["eval_loss"], rel=1e-5)


def test_what_was_known_is_measured_beside_what_is_learned(place, finished):
    """From a mixture, too: the shares of its rows are in the loader's own tests."""
    shutil.copy(place / "eval.txt", place / "old.txt")
    data = f"{place / 'data.jsonl'}:0.75,{place / 'eval.txt'}:0.25"
    report = train(train_settings(place, "two", data=data, retain_text=place / "old.txt", steps=2, eval_every=1))
    log = rows(place / "two")
    assert [row["step"] for row in log if row["retain_loss"] is not None] == [0, 1, 2]
    assert all(row["retain_loss"] == row["eval_loss"] for row in log)
    assert report.losses["retain_loss"] == (log[0]["retain_loss"], log[-1]["retain_loss"])
    known = json.loads((place / "two" / "final" / "growth.json").read_text())["measurements"]["trained"][-1]
    assert known["retained"] == {"before": log[0]["retain_loss"], "after": log[-1]["retain_loss"]}


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file's time of change and content."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_finished_run_is_left_as_it_is_with_what_the_user_put_there(place, finished, monkeypatch):
    shutil.copytree(finished, place / "again")
    (place / "again" / "final" / "notes.txt").write_text("mine")
    before = tree(place / "again")
    monkeypatch.setattr(run, "start", None)
    monkeypatch.setattr(run, "loop", None)
    report = train(train_settings(place, "again"))
    assert tree(place / "again") == before
    evaluated = [row["eval_loss"] for row in rows(finished) if row["eval_loss"] is not None]
    assert (report.done, report.stopped, report.interrupted) == (6, False, False)
    assert report.losses == {"eval_loss": (evaluated[0], evaluated[-1])}


def test_a_final_that_is_gone_is_made_again_and_one_without_checkpoints_is_kept(place, finished):
    shutil.copytree(finished, place / "export")
    shutil.rmtree(place / "export" / "final")
    train(train_settings(place, "export"))
    theirs, ours = (tree(folder / "final") for folder in (finished, place / "export"))
    assert {name: content for name, (_, content) in ours.items()} == {
        name: content for name, (_, content) in theirs.items()
    }
    shutil.rmtree(place / "export" / "checkpoints")
    with pytest.raises(InputError, match="final: is there, but the run's checkpoints are not"):
        train(train_settings(place, "export"))
    assert tree(place / "export" / "final") == ours


def test_a_resumed_run_reads_frozen_weights_only(place, finished, monkeypatch):
    shutil.copytree(finished, place / "resumed")
    shutil.rmtree(place / "resumed" / "final")
    names = []
    monkeypatch.setattr(parameters, "read", lambda opened, name, *rows: names.append(name) or read(opened, name, *rows))
    train(train_settings(place, "resumed", export="none", keep=1))
    train(train_settings(place, "resumed"))
    assert "model.layers.0.mlp.up_proj.weight" in names
    assert not any(name.startswith(("model.layers.2.", "model.layers.4.")) for name in names)


def flip_last_byte(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def swap_rows(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[2], lines[1], *lines[3:]]))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("grown/model.safetensors", flip_last_byte, "another model .the content of its weight files"),
        ("data.jsonl", swap_rows, "another content of --data"),
        ("eval.txt", flip_last_byte, "another --eval-text"),
        ("grown/tokenizer_config.json", lambda path: path.write_text(path.read_text() + " "), "another tokenizer"),
    ],
)
def test_other_inputs_of_the_same_size_are_refused(place, finished, file, change, message):
    before = tree(finished)
    content = (place / file).read_bytes()
    try:
        change(place / file)
        assert abs((place / file).stat().st_size - len(content)) < 2
        with pytest.raises(InputError, match=message) as caught:
            train(train_settings(place, "finished"))
        assert "\n" not in str(caught.value)
    finally:
        (place / file).write_bytes(content)
    after = tree(finished)
    assert {name: after[name] for name in before} == before


@pytest.mark.slow
def test_a_wrong_input_leaves_the_folder_to_the_corrected_command(place):
    (place / "short.txt").write_text("x")
    (place / "chat.txt").write_text("no conversation")
    for changes, message in (
        ({"eval_text": place / "short.txt"}, "--eval-text .*short.txt: has fewer than two tokens"),
        ({"data": str(place / "chat.txt"), "stage": "sft"}, "chat.txt"),
    ):
        with pytest.raises(InputError, match=message):
            train(train_settings(place, "corrected", **changes))
        assert not (place / "corrected" / "run.json").exists()
    train(train_settings(place, "corrected", steps=1, export="none", eval_text=None))
    assert (place / "corrected" / "run.json").exists()


def interrupt_after(function: Callable[..., Any], calls: int) -> Callable[..., Any]:
    """The function, in whose call of this number the process gets SIGTERM."""
    counted = itertools.count(1)

    def called(*arguments: Any, **options: Any) -> Any:
        if next(counted) == calls:
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*arguments, **options)

    return called


@pytest.fixture
def command_signals() -> Iterator[None]:
    """SIGTERM as the command has it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("calls", "done"), [(2, 0), pytest.param(3, 3, marks=pytest.mark.slow), (4, 6)])
def test_a_signal_while_the_loss_is_measured_loses_nothing(place, finished, monkeypatch, command_signals, calls, done):
    """In the evaluation of the model without its new layers, in that after step 3, and in the last one."""
    output = f"measured-{calls}"
    evaluation = run.make_evaluation
    monkeypatch.setattr(run, "make_evaluation", lambda *known: interrupt_after(evaluation(*known), calls))
    report = train(train_settings(place, output))
    assert (report.done, report.stopped, report.interrupted) == (done, True, True)
    assert not (place / output / "final").exists()
    monkeypatch.undo()
    whole = train(train_settings(place, output))
    assert not whole.stopped
    assert whole.base_losses.keys() == {"eval_loss"}
    for key in ("step", "loss", "eval_loss"):
        assert [row[key] for row in rows(place / output)] == [row[key] for row in rows(finished)]


def test_a_signal_in_the_last_save_is_told(place, monkeypatch, command_signals):
    monkeypatch.setattr(loop, "save", interrupt_after(loop.save, 1))
    report = train(train_settings(place, "last-save", steps=1, export="none", eval_text=None))
    assert (report.done, report.stopped, report.interrupted) == (1, False, True)


@pytest.mark.parametrize("where", ["read_data", "start", "export"])
def test_a_signal_before_and_after_the_steps_ends_at_once(place, finished, monkeypatch, command_signals, where):
    shutil.copytree(finished, place / f"signal-{where}")
    shutil.rmtree(place / f"signal-{where}" / "final")
    monkeypatch.setattr(run, where, interrupt_after(getattr(run, where), 1))
    with pytest.raises(KeyboardInterrupt):
        train(train_settings(place, f"signal-{where}"))
    assert not (place / f"signal-{where}" / "final").exists()


@pytest.mark.slow
def test_what_the_stored_dtype_does_not_have_is_not_published(place):
    folder = place / "half"
    shutil.copytree(place / "grown", folder)
    model = hf.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float16)
    model.save_pretrained(folder)
    changes = {"steps": 1, "warmup": 0, "learning_rate": 1e6, "eval_text": None}
    with pytest.raises(InputError, match=r"model\.layers\.\S+: the largest trained number is .*, which F16 does not"):
        train(train_settings(place, "half-run", model=str(folder), **changes))
    assert not (place / "half-run" / "final").exists()
    assert not [path.name for path in (place / "half-run").iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_an_update_that_is_not_finite_is_not_saved(place):
    """Loss and gradient of the only step are finite; what a rate at the end of float32 makes of them is not."""
    with pytest.raises(InputError, match="step 1: the update gave weights that are not finite"):
        train(
            train_settings(place, "overflow", steps=1, warmup=0, learning_rate=1e38, weight_decay=1e38, eval_text=None)
        )
    assert not list((place / "overflow" / "checkpoints").iterdir())
    assert not (place / "overflow" / "final").exists()


def test_no_memory_is_one_line(place, monkeypatch):
    def full(*arguments: Any) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.\nmore")

    monkeypatch.setattr(run, "start", full)
    with pytest.raises(InputError, match="out of memory .*--accumulate, --remat full") as caught:
        train(train_settings(place, "too-large"))
    assert "\n" not in str(caught.value)


def test_every_token_of_two_epochs_is_tokenised_once(place, finished):
    """The cache of another run of the same data is used as it is."""
    cache = finished / "tokens"
    times = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    train(train_settings(place, "cached", steps=1, token_cache=cache, export="none"))
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == times


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_losses(place, finished):
    """kill -9, again and again; what a resumed run computes is bit for bit what an uninterrupted one does."""
    arguments = ["--model", str(place / "grown"), "--data", str(place / "data.jsonl"), *OPTIONS]
    arguments += ["--eval-text", str(place / "eval.txt"), "--save-every", "2", "--output", str(place / "killed")]
    chance = random.Random(0)
    for _ in range(4):
        process = start(*arguments)
        time.sleep(chance.uniform(4, 16))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start(*arguments))
    assert losses(place / "killed") == losses(finished)
    assert [row["step"] for row in rows(place / "killed")] == list(range(7))
    for name in ("model.layers.2.mlp.up_proj.weight", "model.layers.4.input_layernorm.weight"):
        ours, theirs = (read(open_checkpoint(run / "final"), name) for run in (place / "killed", finished))
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_sigterm_saves_and_says_how_to_go_on(place):
    # Nothing is measured, so that the signal comes between two steps.
    arguments = ["--model", str(place / "grown"), "--data", str(place / "data.jsonl"), *OPTIONS, "--hold-out", "0"]
    arguments[arguments.index("--steps") + 1] = "100000"
    output = place / "stopped"
    process = start(*arguments, "--output", str(output))
    while not (output / "metrics.jsonl").exists() or len(rows(output)) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out = finish(process)
    assert "run the same command again to go on" in out
    last = rows(output)[-1]["step"]
    assert [path.name for path in (output / "checkpoints").iterdir()] == [str(last)]
    assert not (output / "final").exists()


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(place):
    with pytest.raises(InputError, match=r"step \d+: loss .* on batch \d+ of --seed 0"):
        train(
            train_settings(place, "explodes", learning_rate=1e30, clip=1e30, weight_decay=1e9, save_every=1, warmup=0)
        )
    kept = [int(path.name) for path in (place / "explodes" / "checkpoints").iterdir()]
    stopped = len(losses(place / "explodes"))
    assert all(step <= stopped for step in kept)


@pytest.mark.slow
def test_a_full_disk_is_reported_and_the_last_checkpoint_kept(place):
    """A limit on the size of any file stands in for a disk without room."""
    arguments = ["--model", str(place / "grown"), "--data", str(place / "data.jsonl"), *OPTIONS, "--save-every", "2"]
    output = place / "full"
    finish(start(*arguments, "--output", str(output), "--export", "none"))
    shutil.rmtree(output / "checkpoints" / "6")  # as if it had been stopped after step 4
    command = [sys.executable, "-m", "lesa_jax.train", *arguments, "--output", str(output), "--export", "none"]
    limited = ["bash", "-c", f"ulimit -f 40; exec {shlex.join(command)}"]  # 40 kB a file
    done = subprocess.run(limited, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "could not be written (the disk is full); earlier ones are kept" in done.stderr.splitlines()[-1]
    assert [path.name for path in (output / "checkpoints").iterdir() if path.name.isdigit()] == ["4"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1e-3}, "its run has learning_rate=0.01, now it is 0.001"),
        ({"steps": 7}, "its run has steps=6, now it is 7"),
        ({"train": "all"}, "another model, plan or --train"),
    ],
)
def test_a_run_goes_on_with_its_own_settings_only(place, finished, changes, message):
    with pytest.raises(InputError, match=message):
        train(train_settings(place, "finished", **changes))


def test_a_run_does_not_go_on_over_other_data_with_as_many_rows(place, finished):
    data = place / "data.jsonl"
    before, stat = data.read_bytes(), data.stat()
    data.write_bytes(b"".join(reversed(before.splitlines(keepends=True))))
    os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    try:
        with pytest.raises(InputError, match="its run was begun with another content of --data"):
            train(train_settings(place, "finished"))
    finally:
        data.write_bytes(before)


def test_an_output_that_is_something_else_is_left_alone(place):
    (place / "other").mkdir()
    (place / "other" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="is not a run of lesa_jax.train"):
        train(train_settings(place, "other"))


def test_dry_run_touches_nothing(place):
    report = train(train_settings(place, "dry", dry_run=True))
    assert not (place / "dry").exists()
    assert report.step_seconds is not None
    assert report.step_seconds > 0
    layer = 4 * 64 * 64 + 3 * 64 * 64 + 2 * 64
    assert report.trained == 2 * layer
    assert report.frozen == 4 * layer + 64 + 4096 * 64
    assert report.memory.moments == 2 * 4 * report.trained
