"""The record of a run: each step once after any resume, valid JSON, readable events, a curve."""

import contextlib
import json
import math
import resource
import struct

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.tracking.curve import CURVE_SIZE
from lesa_jax.tracking.log import CURVE, KEYS, METRICS, TENSORBOARD, WINDOWS, RunLog, read_metrics, read_windows
from tests.support.pictures import png_size

VALUES = {"loss": 3.25, "learning_rate": 2e-4, "grad_norm": 1.5, "tokens_per_second": 12345.6, "mfu": None}


def write_steps(folder, last_step, steps, offset=0.0):
    with RunLog(folder, last_step) as log:
        for step in steps:
            log.write(step, {**VALUES, "tokens": step * 1024, "loss": step + offset})


def events(folder):
    """Event files in the order TensorBoard reads them, as protocol buffers."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack_from("<Q", data)
            event = Event()
            event.ParseFromString(data[12 : 12 + length])
            data = data[16 + length :]
            yield event


def scalars(folder):
    """{(tag, step): value} as TensorBoard shows it: a restart hides what was there from its step on."""
    shown = {}
    for event in events(folder):
        if event.HasField("session_log"):
            shown = {place: value for place, value in shown.items() if place[1] < event.step}
        for value in event.summary.value:
            shown[value.tag, event.step] = value.simple_value
    return shown


def test_windows_come_back_and_those_of_an_earlier_step_go(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.write_windows(0, {"eval_loss": [(9, 3.5)]})
        log.write_windows(4, {"eval_loss": [(31, 3.25), (7, math.inf)], "retain_loss": [(5, 2.5)]})
    file = tmp_path / WINDOWS
    assert json.loads(file.read_text(), parse_constant=pytest.fail) == {
        "step": 4, "eval_loss": [[31, 3.25], [7, None]], "retain_loss": [[5, 2.5]],
    }  # fmt: skip
    assert read_windows(file, "retain_loss") == [(5, 2.5)]
    (_, known), (tokens, unknown) = read_windows(file, "eval_loss")
    assert (known, tokens, math.isnan(unknown)) == (3.25, 7, True)


@pytest.mark.parametrize("damage", ["{}", '{"eval_loss": 3}', '{"eval_loss": [3]}', '{"eval_loss": [["a", 1]]}'])
def test_damaged_windows_are_named(tmp_path, damage):
    (tmp_path / WINDOWS).write_text(damage)
    with pytest.raises(InputError, match=r"windows.json: no eval_loss of windows; remove the run's folder"):
        read_windows(tmp_path / WINDOWS, "eval_loss")


def test_a_line_holds_every_key_in_order_and_null_for_what_json_has_not(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.write(0, {"eval_loss": 3.5, "tokens": 0})
        log.write(1, {"mfu": math.nan, "loss": math.inf, "tokens": 1024, "grad_norm": -math.inf})
        log.write(2, dict.fromkeys(KEYS, 0.5))
    lines = (tmp_path / METRICS).read_text().splitlines()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert all(list(row) == ["step", *KEYS] for row in rows)
    assert KEYS == (
        "tokens", "loss", "eval_loss", "retain_loss", "grad_norm", "learning_rate", "tokens_per_second", "mfu",
    )  # fmt: skip
    assert rows[0] == {"step": 0, **dict.fromkeys(KEYS), "tokens": 0, "eval_loss": 3.5}
    assert rows[1] == {"step": 1, **dict.fromkeys(KEYS), "tokens": 1024}
    assert rows == read_metrics(tmp_path / METRICS)


def test_a_line_is_in_the_file_as_soon_as_it_is_written(tmp_path):
    with RunLog(tmp_path, 0) as log:
        for step in range(1, 4):
            log.write(step, VALUES)
            assert [row["step"] for row in read_metrics(tmp_path / METRICS)] == list(range(1, step + 1))


@pytest.mark.parametrize("torn", ["", '{"step": 8, "tok', '{"step": 8, "loss": 1.0}', "\0\0\0"])
def test_after_any_resume_each_step_stands_there_once(tmp_path, torn):
    write_steps(tmp_path, 0, range(8))
    with (tmp_path / METRICS).open("a") as file:
        file.write(torn)
    write_steps(tmp_path, 5, range(6, 11), offset=100.0)
    write_steps(tmp_path, 9, range(10, 13), offset=200.0)
    rows = read_metrics(tmp_path / METRICS)
    expected = [*range(6), *range(106, 110), *range(210, 213)]
    assert [row["step"] for row in rows] == list(range(13))
    assert [row["loss"] for row in rows] == expected
    assert all(list(row) == ["step", *KEYS] for row in rows)
    shown = scalars(tmp_path / TENSORBOARD)
    assert [shown["loss", step] for step in range(13)] == expected
    assert {path.name for path in tmp_path.iterdir()} == {METRICS, TENSORBOARD, CURVE}


def test_a_run_that_starts_again_has_an_empty_record(tmp_path):
    write_steps(tmp_path, 0, range(4))
    write_steps(tmp_path, 0, range(2), offset=10.0)
    assert [row["loss"] for row in read_metrics(tmp_path / METRICS)] == [10.0, 11.0]
    assert {step for _, step in scalars(tmp_path / TENSORBOARD)} == {0, 1}


def test_opening_changes_nothing_when_nothing_is_to_be_removed(tmp_path):
    write_steps(tmp_path, 0, range(4))
    before = (tmp_path / METRICS).stat().st_ino, (tmp_path / METRICS).read_bytes()
    write_steps(tmp_path, 3, [])
    assert before == ((tmp_path / METRICS).stat().st_ino, (tmp_path / METRICS).read_bytes())


def test_tensorboard_holds_the_values_that_are_numbers(tmp_path):
    with RunLog(tmp_path / "deep" / "run", 0) as log:
        log.write(1, {**VALUES, "tokens": 1024, "eval_loss": math.nan})
    shown = scalars(tmp_path / "deep" / "run" / TENSORBOARD)
    known = {"loss", "learning_rate", "grad_norm", "tokens_per_second", "tokens"}
    assert shown.keys() == {(tag, 1) for tag in known}
    assert shown["loss", 1] == 3.25
    assert shown["tokens", 1] == 1024


def test_an_error_in_the_run_leaves_a_record_and_a_curve(tmp_path):
    def run():
        with RunLog(tmp_path, 0) as log:
            log.write(1, VALUES)
            raise InputError("the loss is not finite")

    with pytest.raises(InputError, match="not finite"):
        run()
    assert len(read_metrics(tmp_path / METRICS)) == 1
    assert png_size(tmp_path / CURVE) == CURVE_SIZE


def test_closing_twice_is_closing_once(tmp_path):
    log = RunLog(tmp_path, 0)
    log.write(1, VALUES)
    log.close()
    (tmp_path / CURVE).unlink()
    log.close()
    assert not (tmp_path / CURVE).exists()


def test_what_the_loop_must_not_write(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.write(3, VALUES)
        with pytest.raises(ValueError, match="step 3 after step 3"):
            log.write(3, VALUES)
        with pytest.raises(ValueError, match="perplexity"):
            log.write(4, {"perplexity": 1.0})
    assert [row["step"] for row in read_metrics(tmp_path / METRICS)] == [3]


@pytest.mark.parametrize(
    "bad",
    ["", "{", "[1]", "7", '{"loss": 1.0}', '{"step": "2"}', '{"step": true}', '{"step": 2, "loss": "low"}',
     '{"step": 2, "loss": NaN}', '{"step": 2, "loss": 1e999}', '{"step": 2}{"step": 3}', "\udcff",
     '{"step": -1}', '{"step": 1}', '{"step": 1%s}' % ("0" * 400), '{"step": 2, "loss": 1%s}' % ("0" * 400),
     "[" * 100_000],
)  # fmt: skip
def test_a_bad_line_is_named_and_only_a_torn_last_one_ignored(tmp_path, bad):
    path = tmp_path / METRICS
    line = bad.encode("utf-8", "surrogateescape")
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 2: "):
        read_metrics(path)
    with pytest.raises(InputError, match=r"line 2: "):
        RunLog(tmp_path, 3)
    assert path.read_bytes() == before
    path.write_bytes(b'{"step": 1}\n' + line)
    assert read_metrics(path) == [{"step": 1}]


def test_a_record_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.jsonl: cannot be read"):
        read_metrics(tmp_path / METRICS)


def test_a_failed_rewrite_keeps_the_record_and_leaves_nothing_beside(tmp_path, monkeypatch):
    write_steps(tmp_path, 0, range(4))
    before = (tmp_path / METRICS).read_bytes()

    def full(path):
        raise OSError("no space left")

    monkeypatch.setattr("lesa_jax.base.files.sync", full)
    with pytest.raises(InputError, match="cannot be written .no space left.; make room there"):
        RunLog(tmp_path, 2)
    assert (tmp_path / METRICS).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {METRICS, TENSORBOARD, CURVE}


@contextlib.contextmanager
def full_disk():
    """A limit on the size of any file stands in for a disk without room; kept no longer than the run, since it holds
    for the file that the tests report to as well."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_a_run_in_one_line_and_keeps_what_was_written(tmp_path):
    def run():
        with full_disk(), RunLog(tmp_path, 0) as log:
            for step in range(1000):
                log.write(step, VALUES)

    with pytest.raises(InputError, match=r"cannot be written \(File too large\); make room there") as caught:
        run()
    assert "\n" not in str(caught.value)
    rows = read_metrics(tmp_path / METRICS)
    assert [row["step"] for row in rows] == list(range(len(rows)))
    assert len(rows) > 10


@pytest.mark.parametrize("name", [METRICS, TENSORBOARD])
def test_what_is_in_the_way_is_named(tmp_path, name):
    (tmp_path / TENSORBOARD).touch() if name == TENSORBOARD else (tmp_path / METRICS).mkdir()
    with pytest.raises(InputError, match=name):
        RunLog(tmp_path, 0)
