"""The live line of a run: redrawn where that is possible, elsewhere a line now and then."""

import io
import math

import pytest
from rich.console import Console

from lesa_jax.tracking.display import Display, status


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
