"""The comparison as a whole: shared work, failing rows, going on, equal batches."""

import html
import json
import math
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tyro
from filelock import FileLock

from lesa_jax.base import locks
from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import command_line
from lesa_jax.compare import print_comparison
from lesa_jax.comparison import grown as models
from lesa_jax.comparison import measure
from lesa_jax.comparison.result import Comparison
from lesa_jax.comparison.run import compare
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.evaluation.run import evaluate
from lesa_jax.evaluation.settings import EvaluateSettings
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.planning import methods
from lesa_jax.training import loop
from tests.support.comparing import by_name, settings, training
from tests.support.settings import change
from tests.support.training import rows

TRAINED = {"train_data": "{place}/eval.txt", "train_tokens": "1K"}


@pytest.fixture(scope="module")
def untrained(place: Path) -> Comparison:
    return compare(settings(place, "untrained", seeds=2, keep_models=True))


def test_rows_are_what_expand_and_evaluate_say(place, untrained):
    found = by_name(untrained)
    assert list(found) == ["base", "llama_pro", "duplicate", "random"]
    expand(ExpandSettings(str(place / "base"), place / "alone", method="duplicate"))
    alone = evaluate(EvaluateSettings(str(place / "alone"), text=place / "eval.txt", sequence_length=32))
    assert found["duplicate"].initial == (alone["perplexity"],)
    assert found["llama_pro"].initial == pytest.approx(found["base"].initial, rel=1e-6)
    assert found["base"].layers == 4
    assert {found[name].layers for name in ("llama_pro", "duplicate", "random")} == {6}
    assert found["duplicate"].new_parameters == found["duplicate"].parameters - found["base"].parameters > 0


def test_random_starts_are_grown_for_every_seed(untrained):
    first, second = by_name(untrained)["random"].initial
    assert first != second
    assert len(by_name(untrained)["duplicate"].initial) == 1


def test_the_report_is_there(place, untrained):
    folder = place / "untrained"
    table = json.loads((folder / "table.json").read_text())
    assert [row["method"] for row in table] == ["base", "llama_pro", "duplicate", "random"]
    assert table[3]["initial_perplexity"] == pytest.approx(np.mean(by_name(untrained)["random"].initial))
    for name in ("table.md", "initial.png", "report.html"):
        assert (folder / name).stat().st_size > 0
    assert not (folder / "curves.png").exists()
    assert sorted(path.name for path in (folder / "models").iterdir()) == [
        "duplicate-0", "llama_pro-0", "random-0", "random-1",
    ]  # fmt: skip


def test_the_command_asks_for_the_same_comparison(place, untrained):
    python, dash_m, door, *options = shlex.split(untrained.command)
    assert (python, dash_m, door) == ("python", "-m", "lesa_jax.compare")
    here = {"model": "base", "text": Path("eval.txt"), "output": Path("untrained")}
    asked = replace(settings(place, "untrained", seeds=2, keep_models=True), **here)  # what lies elsewhere by its name
    assert tyro.cli(CompareSettings, args=options, config=(tyro.conf.OmitArgPrefixes,)) == asked
    assert untrained.command in html.unescape((place / "untrained" / "report.html").read_text())


def test_a_second_call_measures_what_is_missing_only(place, untrained, monkeypatch):
    grown, measured = [], []
    original = models.grow, measure.evaluate

    def grow(ways):
        grown.extend(way.output.name for way in ways)
        return original[0](ways)

    def evaluate(job):
        measured.append(Path(job.model).name)
        return original[1](job)

    monkeypatch.setattr(models, "grow", grow)
    monkeypatch.setattr(measure, "evaluate", evaluate)
    (place / "untrained" / "rows" / "duplicate-0.json").unlink()
    more = settings(place, "untrained", seeds=2, keep_models=True, methods="llama_pro,duplicate,random,g_stack")
    again = by_name(compare(more))
    assert grown == ["g_stack-0"]
    assert measured == ["duplicate-0", "g_stack-0"]
    for name, outcome in by_name(untrained).items():
        assert again[name].initial == outcome.initial


def test_a_row_that_fails_says_why_and_the_others_go_on(place, registry):
    methods.register("broken", methods.Method("", "", "top", lambda weights, gaps, key: weights[[*gaps]] * np.nan))
    found = by_name(compare(settings(place, "failing", methods="solar,broken,duplicate", layers=9)))
    assert "at most 8" in str(found["solar"].error)
    assert "not finite" in str(found["broken"].error)
    assert found["duplicate"].error is None
    assert math.isfinite(found["duplicate"].initial[0])
    table = json.loads((place / "failing" / "table.json").read_text())
    assert "at most 8" in next(row for row in table if row["method"] == "solar")["error"]


@pytest.fixture(scope="module")
def trained(place: Path) -> Comparison:
    return compare(settings(place, "trained", methods="llama_pro,duplicate", batch_size=8, seeds=2, **training(place)))


def test_all_variants_train_on_the_same_batches(place, trained):
    """A silenced layer changes nothing, so the first step's loss tells whether its batch is base's."""
    first = {
        (name, seed): rows(place / "trained" / "runs" / f"{name}-{seed}")[1]["loss"]
        for name in ("base", "llama_pro")
        for seed in (0, 1)
    }
    assert first["llama_pro", 0] == pytest.approx(first["base", 0], rel=1e-5)
    assert first["llama_pro", 1] == pytest.approx(first["base", 1], rel=1e-5)
    assert first["base", 0] != pytest.approx(first["base", 1], rel=1e-5)


def test_curves_know_tokens_operations_and_seconds(trained):
    found = by_name(trained)
    for outcome in found.values():
        assert len(outcome.curves) == 2
        for curve in outcome.curves:
            assert [point.tokens for point in curve] == [0, 768, 1536, 1792]
            assert [point.flops for point in curve] == pytest.approx(
                [n * outcome.step_flops for n in (0, 768, 1536, 1792)]
            )
            seconds = [point.seconds for point in curve]
            assert seconds == sorted(seconds)
            assert seconds[-1] > 0
            assert curve[-1].loss < curve[0].loss
    assert found["base"].backward_depth == 4
    assert found["llama_pro"].backward_depth == found["llama_pro"].layers - found["llama_pro"].new_layers[0]
    assert np.log(found["duplicate"].initial[0]) == pytest.approx(found["duplicate"].curves[0][0].loss, rel=1e-5)


def test_differences_are_tested_over_the_windows_of_the_text(place, trained):
    for outcome in trained.outcomes:
        for windows, curve in zip(outcome.windows, outcome.curves, strict=True):
            total = sum(window.tokens for window in windows)
            assert sum(tokens * loss for tokens, loss in windows) / total == pytest.approx(curve[-1].loss, rel=1e-6)
    table = json.loads((place / "trained" / "table.json").read_text())
    [against_base] = [one for one in table[1]["differences"] if one["against"] == "trained base"]
    pro, base = (by_name(trained)[name] for name in ("llama_pro", "base"))
    ends = [a[-1].loss - b[-1].loss for a, b in zip(pro.curves, base.curves, strict=True)]
    assert against_base["loss"] == pytest.approx(np.mean(ends))
    assert against_base["low"] < against_base["loss"] < against_base["high"]
    assert against_base["seeds"]["of"] == 2
    assert against_base["windows"]["of"] == len(base.windows[0])
    assert "| llama_pro | trained base: base |" in (place / "trained" / "table.md").read_text()


def test_the_report_of_training_is_there(place, trained):
    assert (place / "trained" / "curves.png").stat().st_size > 0
    assert not (place / "trained" / "models").exists()
    row = json.loads((place / "trained" / "table.json").read_text())[1]
    assert row["perplexity"] == pytest.approx(
        np.mean([math.exp(c[-1].loss) for c in by_name(trained)["llama_pro"].curves])
    )


def test_a_finished_comparison_trains_nothing_again(place, trained, monkeypatch):
    monkeypatch.setattr(measure, "train", None)
    monkeypatch.setattr(measure, "evaluate", None)
    monkeypatch.setattr(models, "grow", None)
    again = compare(settings(place, "trained", methods="llama_pro,duplicate", batch_size=8, seeds=2, **training(place)))
    assert again.outcomes == trained.outcomes


@pytest.mark.slow
def test_a_stopped_comparison_reports_what_is_there_and_goes_on(place, trained, monkeypatch, capsys):
    """Base is trained, llama_pro stopped in its first steps, duplicate not begun."""
    job = settings(place, "stopped", methods="llama_pro,duplicate", batch_size=8, **training(place))

    @contextmanager
    def stop_signal():
        asked = count()
        yield lambda: (job.output / "runs" / "llama_pro-0").exists() and next(asked) >= 4

    monkeypatch.setattr(loop, "stop_signal", stop_signal)
    found = compare(job)
    assert found.stopped
    assert "stopped while training llama_pro, seed 0" in capsys.readouterr().err
    assert [len(outcome.curves) for outcome in found.outcomes] == [1, 0, 0]
    assert [row["perplexity"] is None for row in json.loads((job.output / "table.json").read_text())] == [
        False, True, True,
    ]  # fmt: skip
    assert {path.name for path in (job.output / "models").iterdir()} == {"llama_pro-0", "duplicate-0"}

    monkeypatch.undo()
    whole = compare(job)
    assert not whole.stopped
    assert not (job.output / "models").exists()
    for outcome, alone in zip(whole.outcomes, trained.outcomes, strict=True):
        assert [point.loss for point in outcome.curves[0]] == [point.loss for point in alone.curves[0]]


def test_the_command_says_how_to_go_on(untrained, capsys):
    assert print_comparison(replace(untrained, stopped=True)) == 130
    assert capsys.readouterr() == ("", "interrupted: run the same command again to go on\n")
    assert print_comparison(untrained) == 0
    assert "| llama_pro |" in capsys.readouterr().out


@pytest.mark.slow
def test_sigterm_ends_the_command_with_a_report(place, trained):
    job = settings(place, "signalled", methods="llama_pro,duplicate", batch_size=8, **training(place))
    job = change(job, train_tokens="100M", eval_every="100M")
    command = [sys.executable, *shlex.split(command_line("-m lesa_jax.compare", job))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = job.output / "runs" / "base-0" / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 4:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out == ""
    assert err.endswith("stopped while training base, seed 0\ninterrupted: run the same command again to go on\n")
    assert (job.output / "report.html").exists()
    assert len(list((job.output / "runs" / "base-0" / "checkpoints").iterdir())) == 1


@pytest.mark.slow
def test_what_another_process_trains_is_left_to_it_and_looked_at_last(place, trained, capsys, monkeypatch):
    """The other process trains base, and dies when this one waits for it."""
    folder = place / "shared-work"
    (folder / "rows").mkdir(parents=True)
    (folder / "start.lock").touch()
    other_process = FileLock(folder / "rows" / "base-0.lock")
    other_process.acquire()

    def says(text, **where):
        print(text, **where)
        other_process.release()

    monkeypatch.setattr(locks, "print", says, raising=False)
    found = compare(settings(place, "shared-work", methods="llama_pro,duplicate", batch_size=8, **training(place)))
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("training ", "waiting "))]
    assert re.fullmatch(r"training duplicate, seed 0 \(3 of 3, about 0:0\d:\d\d left in all\)", said.pop(1))
    assert said == [
        "training llama_pro, seed 0 (2 of 3)",
        "waiting for another process, which trains base, seed 0",
    ]
    for outcome, alone in zip(found.outcomes, trained.outcomes, strict=True):
        assert [point.loss for point in outcome.curves[0]] == [point.loss for point in alone.curves[0]]


@pytest.mark.slow
def test_two_processes_share_a_comparison(place, trained):
    """Each run is made by one of them; both print the same table."""
    job = settings(place, "two", methods="llama_pro,duplicate", batch_size=8, seeds=2)
    command = [
        *(sys.executable, "-m", "lesa_jax.compare", "--model", str(job.model), "--text", str(job.text)),
        *("--output", str(job.output), "--methods", job.methods, "--batch-size", "8", "--seeds", "2"),
        *("--sequence-length", "32", "--train-data", str(place / "data.jsonl"), "--train-tokens", "2K"),
        *("--eval-every", "1K", "--learning-rate", "1e-2"),
    ]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    (table, first), (other_table, second) = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], first + second
    trained_by = [re.findall(r"training (\w+, seed \d)", log) for log in (first, second)]
    assert all(trained_by)
    assert sorted(trained_by[0] + trained_by[1]) == [
        f"{name}, seed {seed}" for name in ("base", "duplicate", "llama_pro") for seed in (0, 1)
    ]
    assert table == other_table
    rows = [json.loads((place / name / "table.json").read_text()) for name in ("two", "trained")]
    for ours, alone in zip(*rows, strict=True):
        assert ours["perplexity"] == pytest.approx(alone["perplexity"], rel=1e-5)


@pytest.mark.slow
def test_runs_of_one_shape_share_a_compiled_step(place, trained, caplog):
    """Both methods grow 4 to 6 layers, evenly."""
    with jax.log_compiles():
        compare(settings(place, "shared", methods="llama_pro,tli,duplicate", batch_size=8, **training(place)))
    steps = [r for r in caplog.records if "Finished XLA compilation of jit(train_step)" in r.getMessage()]
    assert len(steps) <= 2  # base and grown; fewer where another test has compiled them


def test_a_method_of_ones_own(place, registry):

    def noisy_copy(weights, gaps, key):
        copies = weights[np.array(gaps)]
        return copies + 0.01 * copies.std() * jax.random.normal(key, copies.shape)

    methods.register("noisy_copy", methods.Method("copies with noise", "me", "top", noisy_copy, seeded=True))
    found = by_name(compare(settings(place, "own", methods="noisy_copy", seeds=2)))
    assert len(set(found["noisy_copy"].initial)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": "lesa,lessa"}, "no method lessa: did you mean lesa"),
        ({"methods": ","}, "--methods is empty"),
        ({"placements": "left"}, "--placements left: known are top, even"),
        ({"seeds": 0}, "--seeds 0"),
        ({"train_tokens": "1M"}, "belong together"),
        ({"train_data": "x.txt"}, "belong together"),
        ({"train_data": "x.txt", "train_tokens": "many"}, "--train-tokens many"),
        ({"retain_text": Path("x.txt")}, "--retain-text: what is forgotten in training; it needs --train-data"),
        (
            {"train_data": "{place}/eval.txt", "train_tokens": "1K", "retain_text": Path("{tmp}/one.txt")},
            "--retain-text one.txt: holds fewer than two tokens",
        ),
        ({"placements": "influence", "model": None, "text": None}, "--placements influence: is measured on a text"),
        ({"replay": "0.1"}, "--replay-data and --replay belong together"),
        ({"replay_data": "x.txt"}, "--replay-data and --replay belong together"),
        ({"replay": "0.1", "replay_data": "x.txt"}, "--replay: a way to train; it needs --train-data"),
        ({**TRAINED, "replay": "0", "replay_data": "x.txt"}, "--replay 0: replays nothing"),
        ({**TRAINED, "replay": "0.1", "replay_data": "no.txt"}, "--replay-data no.txt: no such file"),
        (
            {**TRAINED, "replay": "0,0.1", "replay_data": "{tmp}/other.jsonl"},
            'other.jsonl:1: no "text" in the record',
        ),
        (
            {**TRAINED, "replay": "0,0.1", "replay_data": "{place}/eval.txt,{place}/data.jsonl"},
            "a list of files cannot be mixed with another",
        ),
        ({"lora": True}, "--lora: a way to train; it needs --train-data and --train-tokens"),
        ({"learning_rate": "swepe"}, "--learning-rate swepe: expected a positive number"),
        ({"learning_rate": "1e-3,0"}, "--learning-rate 1e-3,0: expected"),
        ({"learning_rate": -1.0}, "--learning-rate -1.0: expected"),
        ({"text": None}, "name a held-out text"),
        ({"text": Path("no.txt")}, "cannot be read"),
        ({"sequence_length": 4096}, "expected 2 to 128"),
        ({"layers": 3}, "--layers 3: the model has 4 layers already"),
        ({"methods": "solar", "layers": 9}, "at most 8"),
        ({"seeds": 10**9}, "--seeds 1000000000: from 1 to 1000"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"learning_rate": -1.0}, "--learning-rate -1.0"),
        ({"learning_rate": float("nan")}, "--learning-rate nan"),
        ({"train_data": "no.txt", "train_tokens": "1K"}, "--train-data no.txt: no such file"),
        ({"train_data": "{place}/eval.txt", "train_tokens": "1K", "train": "nothing"}, "--train nothing"),
        ({"train_data": "{place}/eval.txt", "train_tokens": "1K", "train": "("}, "--train ("),
        ({"train_data": "{place}/eval.txt", "train_tokens": "100"}, "--train-tokens 100: less than a step"),
        ({"train_data": "{tmp}/other.jsonl", "train_tokens": "1K"}, 'other.jsonl:1: no "text" in the record'),
        ({"text": Path("{tmp}/one.txt")}, "--text one.txt: holds fewer than two tokens"),
        ({"text": Path("{tmp}/blank.txt")}, "holds no text"),
        ({"output": Path("{place}/base")}, "overlap; choose another output"),
        ({"output": Path("{place}/base/inside")}, "overlap; choose another output"),
        ({"output": Path("{place}")}, "overlap; choose another output"),
        ({"output": Path("{tmp}/one.txt")}, "exists and is no comparison"),
    ],
)
def test_bad_options_end_in_one_line_and_write_nothing(place, tmp_path, options, message):
    (tmp_path / "one.txt").write_text("a")
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "other.jsonl").write_text('{"content": "a"}\n')
    given = {"output": tmp_path / "out"} | {name: here(value, place, tmp_path) for name, value in options.items()}
    before = sorted(place.rglob("*")), sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as caught:
        compare(change(settings(place, "bad"), **given))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (sorted(place.rglob("*")), sorted(tmp_path.rglob("*"))) == before


def here(value: Any, place: Path, tmp_path: Path) -> Any:
    """An option with its folders filled in."""
    if not isinstance(value, str | Path):
        return value
    return type(value)(str(value).replace("{place}", str(place)).replace("{tmp}", str(tmp_path)))


def test_an_output_of_something_else_is_left_alone(place, untrained, tmp_path):
    with pytest.raises(InputError, match="--layers None, now it is 7"):
        compare(settings(place, "untrained", layers=7))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="exists and is no comparison"):
        compare(replace(settings(place, "x"), output=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
