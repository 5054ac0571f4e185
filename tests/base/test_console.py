"""Bars are shown where they can be redrawn: on a terminal, and in a notebook in one place."""

import importlib.machinery
import io
import sys
from types import ModuleType

import pytest
from rich.console import Console
from rich.progress import TextColumn

from lesa_jax.base import console as module
from lesa_jax.base.console import LiveProgress, SpokenProgress, progress_bars


class Notebook:
    """Stands in for IPython and ipywidgets: what is displayed, and what was drawn into each widget."""

    def __init__(self):
        self.displayed, self.drawn, self.inside = [], [], False

    def display(self, thing):
        (self.drawn if self.inside else self.displayed).append(thing)

    def output(self):
        notebook = self

        class Output:
            def __enter__(self):
                notebook.inside = True

            def __exit__(self, *error):
                notebook.inside = False

            def clear_output(self, wait):
                notebook.drawn.clear()

        return Output()


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    notebook = Notebook()
    ipython, display, widgets = ModuleType("IPython"), ModuleType("IPython.display"), ModuleType("ipywidgets")
    display.display = notebook.display
    widgets.Output = notebook.output
    widgets.__spec__ = importlib.machinery.ModuleSpec("ipywidgets", None)
    for stub in (ipython, display, widgets):
        monkeypatch.setitem(sys.modules, stub.__name__, stub)
    return notebook


def test_in_a_notebook_bars_are_one_widget_that_ends_as_they_are_at_last(notebook):
    console = Console(force_jupyter=True, width=80)
    with LiveProgress(TextColumn("{task.completed} done"), console=console) as progress:
        task = progress.add_task("", total=100)
        for _ in range(100):
            progress.advance(task)
            progress.refresh()
    shown = [thing for thing in notebook.displayed if getattr(thing, "text", "widget").strip()]
    assert len(shown) == 1  # and at the end an empty block, which is rich's
    assert [drawn.text.strip() for drawn in notebook.drawn] == ["100 done"]


def test_without_ipywidgets_a_notebook_gets_none(notebook, monkeypatch, recwarn):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with LiveProgress(TextColumn("bar"), console=Console(force_jupyter=True)) as progress:
        progress.add_task("", total=1)
    assert notebook.displayed == notebook.drawn == []
    assert not recwarn


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_are_shown_on_a_terminal_only(terminal):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, force_jupyter=False, legacy_windows=False)
    with LiveProgress(TextColumn("bar"), console=console) as progress:
        progress.add_task("", total=1)
    assert ("bar" in stream.getvalue()) == terminal


def test_where_nothing_can_be_redrawn_short_work_is_silent(capsys):
    with progress_bars() as progress:
        progress.advance(progress.add_task("work", total=2, note=""))
    assert tuple(capsys.readouterr()) == ("", "")


def test_where_nothing_can_be_redrawn_long_work_speaks_once_a_minute(capsys, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    with progress_bars() as progress:
        progress.get_time = lambda: now
        copying = progress.add_task("bytes written", total=None, note="")
        work = progress.add_task("new matrices", total=10, note="[mlp.up_proj]")
        for _ in range(10):
            now += 25
            progress.advance(work)
        now += 61
        progress.advance(copying, 5)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "new matrices  30 %  [mlp.up_proj]  0:01:15 elapsed, 0:02:55 left",
        "new matrices  60 %  [mlp.up_proj]  0:02:30 elapsed, 0:01:40 left",
        "new matrices  90 %  [mlp.up_proj]  0:03:45 elapsed, 0:00:25 left",
        "bytes written  0:05:11 elapsed",
    ]


def test_what_the_others_wait_for_is_told_whatever_moved(capsys, monkeypatch):
    """Bytes of new matrices are written now and then; by their pace no time is known."""
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    with progress_bars() as progress:
        progress.get_time = lambda: now
        copying = progress.add_task("bytes written", total=100, note="")
        work = progress.add_task("new matrices", total=10, note="")
        now += 70
        progress.advance(work, 4)
        now += 70
        progress.advance(copying, 3)
        progress.advance(work, 6)
        now += 70
        progress.advance(copying, 50)
    told = [line.split("  ")[:2] for line in capsys.readouterr().err.splitlines()]
    assert told == [["new matrices", "40 %"], ["new matrices", "40 %"], ["bytes written", "53 %"]]


def test_on_a_terminal_bars_say_it(monkeypatch):
    monkeypatch.setattr(module, "QUIET", 0.0)
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, force_jupyter=False, legacy_windows=False)
    with SpokenProgress(TextColumn("bar"), console=console) as progress:
        progress.advance(progress.add_task("work", total=2, note=""))
    assert "work" not in stream.getvalue()
