"""The new user's script runs what the README prints, and leaves out no more than it says."""

from pathlib import Path

import pytest

from experiments.as_printed import LEFT_OUT, ONLY_PLANNED, commands, out_of_the_way, python_blocks

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def test_every_printed_command_is_found():
    found = commands(README)
    assert len(found) == sum(line.startswith("    lesa ") for line in README.splitlines())
    assert any("--seeds 3" in line and "--learning-rate sweep" in line for line in found)  # of two lines
    assert len(python_blocks(README)) == README.count("```python")


@pytest.mark.parametrize("part", [*LEFT_OUT, ONLY_PLANNED])
def test_there_is_no_exception_for_nothing(part):
    assert any(part in command for command in commands(README))


@pytest.mark.parametrize(("more", "stays"), [([], "new"), (["--dry-run"], "old")])
def test_a_command_finds_no_output_of_another(tmp_path, more, stays):
    output = tmp_path / "out"
    output.mkdir()
    (output / "old").touch()
    with out_of_the_way(["lesa", "expand", "--output", str(output), *more]):
        assert not output.exists()
        if not more:
            output.mkdir()
            (output / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", stays]
