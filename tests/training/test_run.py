"""The training command, as a user runs it: what it writes, how it goes on."""

import json
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint, read
from lesa_jax.evaluation.run import evaluate
from lesa_jax.evaluation.settings import EvaluateSettings
from lesa_jax.training import parameters, run
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
        "step", "tokens", "loss", "eval_loss", "grad_norm", "learning_rate", "tokens_per_second", "mfu",
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


def test_a_finished_run_is_left_as_it_is(place, finished):
    shutil.copytree(finished, place / "again")
    report = train(train_settings(place, "again"))
    assert report.done == 6
    assert losses(place / "again") == losses(finished)


def test_a_resumed_run_reads_frozen_weights_only(place, finished, monkeypatch):
    shutil.copytree(finished, place / "resumed")
    names = []
    monkeypatch.setattr(
        parameters, "read", lambda checkpoint, name, *rows: names.append(name) or read(checkpoint, name, *rows)
    )
    train(train_settings(place, "resumed", export="none"))
    assert "model.layers.0.mlp.up_proj.weight" in names
    assert not any(name.startswith(("model.layers.2.", "model.layers.4.")) for name in names)


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


def test_sigterm_saves_and_says_how_to_go_on(place):
    arguments = ["--model", str(place / "grown"), "--data", str(place / "data.jsonl"), *OPTIONS]
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


def test_random_weights_need_no_checkpoint(place):
    folder = place / "scratch"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(place / "base" / name, folder / name)
    changes = {"model": None, "init": "random", "config": folder / "config.json", "steps": 2}
    report = train(train_settings(place, "scratch-run", **changes))
    assert report.frozen == 0
    final = open_checkpoint(place / "scratch-run" / "final")
    assert final.config["num_hidden_layers"] == 4
    assert rows(place / "scratch-run")[0]["eval_loss"] == pytest.approx(np.log(4096), rel=0.05)


def test_all_and_sft_go_through_the_same_step(place):
    chats = place / "chat.jsonl"
    record = {"instruction": "Say the number.", "output": "It is seven."}
    chats.write_text("".join(json.dumps(record) + "\n" for _ in range(40)))
    train(train_settings(place, "sft", data=str(chats), stage="sft", train="all", steps=3, sequence_length=128))
    assert losses(place / "sft")[-1] < losses(place / "sft")[0]
