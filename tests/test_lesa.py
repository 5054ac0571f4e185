"""The `lesa` script, and what `import lesa_jax` offers."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import lesa_jax
from lesa_jax.__main__ import COMMANDS, main

NO_JAX = [
    "METHODS", "AnalyzeSettings",
    "CompareSettings", "EvaluateSettings", "ExpandSettings", "GenerateSettings", "HarnessSettings", "InputError",
    "Method", "Plan",
    "ProfileSettings", "TrainSettings",
    "UngrowSettings", "WidenSettings", "__version__", "make_plan", "open_checkpoint", "register",
]  # fmt: skip


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_every_public_name_is_there():
    assert set(lesa_jax.__all__) == {*NO_JAX, "forward", "load_model", "logits"}
    assert set(lesa_jax.__all__) <= set(dir(lesa_jax))
    for name in lesa_jax.__all__:
        assert getattr(lesa_jax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        lesa_jax.nonsense  # noqa: B018
    assert lesa_jax.__version__ == version("lesa_jax")


def test_import_is_light_and_what_copies_or_plans_needs_no_jax():
    code = f"""
import sys
before = set(sys.modules)
import lesa_jax
assert {{name.split(".")[0] for name in set(sys.modules) - before}} <= set(sys.stdlib_module_names) | {{"lesa_jax"}}
for name in {NO_JAX}:
    getattr(lesa_jax, name)
    assert "jax" not in sys.modules, name
lesa_jax.make_plan(4, "duplicate", layers=6)
import lesa_jax.expand, lesa_jax.ungrow, lesa_jax.widen
print("jax" in sys.modules)
"""
    assert python(code) == "False"


def test_help_names_every_command_and_imports_none(capsys, monkeypatch):
    monkeypatch.setattr("lesa_jax.__main__.import_module", pytest.fail)
    for options in (["--help"], []):
        monkeypatch.setattr(sys, "argv", ["lesa", *options])
        assert main() == 0
        shown = capsys.readouterr().out
        assert shown.startswith("usage: lesa COMMAND")
        assert all(f"\n  {name}" in shown for name in COMMANDS)


def test_the_version(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lesa", "--version"])
    assert main() == 0
    assert capsys.readouterr().out == f"lesa_jax {version('lesa_jax')}\n"


@pytest.mark.parametrize(("name", "near"), [("trian", "train"), ("Compare", "compare"), ("", "")])
def test_an_unknown_command_ends_in_one_line_with_the_nearest_name(name, near, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lesa", name])
    assert main() == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: no command {name}: did you mean {near}")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_is_called_as_it_was(command, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lesa", command, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: lesa {command} ")
