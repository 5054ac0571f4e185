"""The record of a run: each step once after any resume, valid JSON, readable events, a curve; and the live line."""

import io
import json
import math
import struct

import numpy as np
import pytest
from rich.console import Console

from lesa_jax.base.errors import InputError
from lesa_jax.base.units import short, short_rate
from lesa_jax.tracking.curve import CURVE_SIZE, draw_curve, loss_limits, smooth, thin
from lesa_jax.tracking.display import Display, status
from lesa_jax.tracking.log import CURVE, KEYS, METRICS, TENSORBOARD, RunLog, read_metrics

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


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


def test_a_line_holds_every_key_in_order_and_null_for_what_json_has_not(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.write(0, {"eval_loss": 3.5, "tokens": 0})
        log.write(1, {"mfu": math.nan, "loss": math.inf, "tokens": 1024, "grad_norm": -math.inf})
        log.write(2, dict.fromkeys(KEYS, 0.5))
    lines = (tmp_path / METRICS).read_text().splitlines()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert all(list(row) == ["step", *KEYS] for row in rows)
    assert KEYS == ("tokens", "loss", "eval_loss", "grad_norm", "learning_rate", "tokens_per_second", "mfu")
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
     '{"step": 2, "loss": NaN}', '{"step": 2, "loss": 1e999}', '{"step": 2}{"step": 3}', "\udcff"],
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
    with pytest.raises(OSError, match="no space"):
        RunLog(tmp_path, 2)
    assert (tmp_path / METRICS).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {METRICS, TENSORBOARD, CURVE}


def rows_of(steps, **columns):
    return [{"step": step, **{key: column(step) for key, column in columns.items()}} for step in range(steps)]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        rows_of(1, tokens=lambda s: 0, loss=lambda s: 3.0, eval_loss=lambda s: 3.0, learning_rate=lambda s: 0.0),
        rows_of(3, tokens=lambda s: None, loss=lambda s: 0.0, learning_rate=lambda s: 1e-4),
        rows_of(50, tokens=lambda s: s * 10**8, loss=lambda s: None, eval_loss=lambda s: None),
        rows_of(50, tokens=lambda s: s * 10**8, loss=lambda s: None, eval_loss=lambda s: 9.0 if s % 20 == 0 else None),
        rows_of(9000, tokens=lambda s: s * 4096, loss=lambda s: 1e30 if s == 0 else 3.0 + s % 7, mfu=lambda s: 0.4),
    ],
    ids=["nothing", "one step", "no tokens", "no losses", "evaluations only", "long with an outlier"],
)
def test_every_run_has_a_curve(tmp_path, rows):
    draw_curve(rows, tmp_path / CURVE)
    assert png_size(tmp_path / CURVE) == CURVE_SIZE
    assert [path.name for path in tmp_path.iterdir()] == [CURVE]


def test_the_same_run_gives_the_same_curve_and_another_a_different_one(tmp_path):
    rows = rows_of(100, tokens=lambda s: s * 4096, loss=lambda s: 3.0 + 1 / (1 + s))
    contents = []
    for drawn in (rows, rows, rows[:60]):
        draw_curve(drawn, tmp_path / CURVE)
        contents.append((tmp_path / CURVE).read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_smoothing_keeps_a_straight_line_and_calms_noise():
    np.testing.assert_allclose(smooth(np.full(500, 3.0)), 3.0)
    line = np.linspace(5.0, 3.0, 500)
    np.testing.assert_allclose(smooth(line)[:490], line[:490])  # means are one-sided at the end
    noise = np.random.default_rng(0).standard_normal(2000)
    assert smooth(noise)[200:].std() < 0.3
    assert smooth(noise)[0] == pytest.approx(noise[0])
    assert len(smooth(np.zeros(0))) == 0


def test_the_loss_axis_ignores_the_first_steps_and_a_far_first_evaluation():
    train = np.concatenate([[900.0, 50.0, 10.0], np.linspace(4.0, 3.0, 997)])
    none = np.zeros(0)
    low, high = loss_limits(train, none)
    assert low < 3.05
    assert 3.99 < high < 4.2
    assert loss_limits(train, np.array([800.0, 3.5])) == (low, high)
    near = loss_limits(train, np.array([4.6, 3.5]))
    assert near[1] > 4.6
    for single in (loss_limits(np.array([3.0]), none), loss_limits(none, np.array([0.0]))):
        assert single[0] < single[1]


def test_long_runs_are_thinned():
    assert [len(range(n)[thin(n)]) for n in (0, 1, 4000, 4001, 10**6)] == [0, 1, 4000, 2001, 4000]


def test_numbers_are_short():
    assert [short(count) for count in (0, 950, 1500, 2e6, 1.25e9)] == ["0", "950", "1.5K", "2M", "1.25B"]
    assert [short_rate(rate) for rate in (7.2, 999.4, 1234.0, 12345.6, 456789.0, 2.5e6)] == [
        "7", "999", "1.23k", "12.3k", "457k", "2.50M",
    ]  # fmt: skip


def test_the_status_leaves_out_what_is_not_known():
    values = {"loss": 3.2141, "eval_loss": 3.3, "tokens_per_second": 12345.6, "mfu": 0.412, "tokens": 5}
    assert status(120, 2000, values) == "step 120/2000  loss 3.214  eval 3.300  12.3k tok/s  MFU 41.2%"
    assert status(1, 9, {"loss": math.nan, "eval_loss": None, "mfu": None}) == "step 1/9  loss nan"


def plain_lines(first, steps, seconds):
    now = [0.0]
    console = Console(file=io.StringIO(), width=40)
    with Display(steps, first, console, clock=lambda: now[0]) as display:
        for step in range(first + 1, steps + 1):
            now[0] += seconds
            display.update(step, {"loss": 3.0, "eval_loss": 3.5 if step == first + 2 else None})
    return console.file.getvalue().splitlines()


def test_without_a_terminal_a_line_comes_every_ten_seconds():
    lines = plain_lines(100, 150, 1.0)
    assert [int(line.split()[1].split("/")[0]) for line in lines] == [101, 111, 121, 131, 141, 150]
    assert lines[0] == "step 101/150  loss 3.000  0:00:01 elapsed, -:--:-- left"
    assert lines[1] == "step 111/150  loss 3.000  eval 3.500  0:00:11 elapsed, 0:00:39 left"  # the evaluation stays
    assert lines[-1].endswith("0:00:50 elapsed, 0:00:00 left")
    assert len(plain_lines(0, 5, 60.0)) == 5


def test_without_a_terminal_lines_go_to_stderr(capsys):
    with Display(1) as display:
        display.update(1, {"loss": 3.0})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("step 1/1  loss 3.000")


@pytest.mark.parametrize(("width", "bar"), [(80, False), (130, True)])
def test_on_a_terminal_there_is_one_line_with_times_and_room_for_a_bar(width, bar):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with Display(2000, 100, console) as display:
        display.update(120, {"loss": 3.2141, "eval_loss": 3.3, "tokens_per_second": 12345.6, "mfu": 0.412})
    last = console.file.getvalue().splitlines()[-2]  # the last shows the cursor again
    for text in ("step 120/2000  loss 3.214  eval 3.300  12.3k tok/s  MFU 41.2%", "0:00:00", "-:--:--"):
        assert text in last
    assert ("━" in last) == bar
