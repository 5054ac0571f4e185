"""A run that was killed goes on where it stopped, and ends as if it had not been."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lesa_jax.base.errors import Terminated
from lesa_jax.base.files import partial
from lesa_jax.growth import compute
from lesa_jax.growth.journal import FILE, Journal
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from tests.support.growth import grow
from tests.support.tiny import tiny

GROW = """
import os, sys
from pathlib import Path
from lesa_jax.growth.journal import Journal
from tests.support.growth import grow
left, add = [int(sys.argv[4])], Journal._add
def dying(self, entry):
    add(self, entry)
    left[0] -= 1
    if not left[0]:
        os._exit(9)
Journal._add = dying
grow(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], gaps="1,3")
"""


DYING_CALIBRATION = """
import os, sys
from pathlib import Path
from lesa_jax.growth import calibrate
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
def dying(*arguments):
    rewrite(*arguments)
    os._exit(9)
rewrite, calibrate.rewrite = calibrate.rewrite, dying
expand(ExpandSettings(output=Path(sys.argv[1]), method="average", calibrate=Path(sys.argv[2])))
"""


def killed_after(pieces: int, source: Path, output: Path, method: str) -> None:
    command = [sys.executable, "-c", GROW, str(source), str(output), method, str(pieces)]
    assert subprocess.run(command, check=False, cwd=Path(__file__).parents[2]).returncode == 9


def weights(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("*.safetensors"))}


@pytest.mark.parametrize(
    ("family", "method", "pieces"),
    [
        ("llama", "lesa", 3),
        pytest.param("phi3", "average", 2, marks=pytest.mark.slow),
        pytest.param("mixtral", "random", 4, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_with_what_is_done(tmp_path, family, method, pieces, capsys, monkeypatch):
    """Of phi3's fused matrices one part is done, and the others are not."""
    source, output = tiny(family), tmp_path / "out"
    killed_after(pieces, source, output, method)
    assert {path.name for path in tmp_path.iterdir()} == {partial(output).name, ".out.lock"}
    computed = []

    def counted(checkpoint, batch, *rest):
        computed.extend(batch)
        return original(checkpoint, batch, *rest)

    original = compute.compute_batch
    monkeypatch.setattr(compute, "compute_batch", counted)
    result = grow(source, output, method, gaps="1,3")
    assert "going on with" in capsys.readouterr().err
    resumed = len(computed)
    whole = grow(source, tmp_path / "whole", method, gaps="1,3")
    assert resumed == len(computed) - resumed - pieces
    assert weights(output) == weights(tmp_path / "whole")
    assert (output / "growth.json").read_text() == (tmp_path / "whole" / "growth.json").read_text()
    assert result.kinds == whole.kinds
    assert {path.name for path in tmp_path.iterdir()} == {"out", "whole"}
    assert not (output / FILE).exists()


@pytest.mark.slow
def test_a_piece_that_was_being_noted_is_done_again(tmp_path, capsys):
    source, output = tiny("llama"), tmp_path / "out"
    killed_after(3, source, output, "average")
    with (partial(output) / FILE).open("a") as file:
        file.write('{"kind": "model.layers.')
    grow(source, output, "average", gaps="1,3")
    assert "going on with" in capsys.readouterr().err
    grow(source, tmp_path / "whole", "average", gaps="1,3")
    assert weights(output) == weights(tmp_path / "whole")


@pytest.mark.parametrize(("error", "goes_on"), [(Terminated, True), (KeyboardInterrupt, False)])
def test_sigterm_leaves_what_can_go_on_and_ctrl_c_nothing(tmp_path, error, goes_on, capsys, monkeypatch):
    """Ctrl-C raises the same as SIGTERM does, but for its class."""
    source, output, add, entries = tiny("llama"), tmp_path / "out", Journal._add, []

    def interrupted(self, entry):
        add(self, entry)
        entries.append(entry)
        if len(entries) == 3:
            raise error

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_add", interrupted)
        with pytest.raises(error):
            grow(source, output, "average", gaps="1,3")
    assert {path.name for path in tmp_path.iterdir()} == ({partial(output).name, ".out.lock"} if goes_on else set())
    capsys.readouterr()
    grow(source, output, "average", gaps="1,3")
    assert ("going on with" in capsys.readouterr().err) == goes_on
    grow(source, tmp_path / "whole", "average", gaps="1,3")
    assert weights(output) == weights(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "whole"}


@pytest.mark.slow
def test_what_calibration_has_begun_to_change_is_made_again(tmp_path, capsys):
    """Its factors act on what is written: twice they would be squared."""
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and the dog sat on the log " * 60)
    command = [sys.executable, "-c", DYING_CALIBRATION, str(tmp_path / "out"), str(text)]
    assert subprocess.run(command, check=False, cwd=Path(__file__).parents[2]).returncode == 9
    for name in ("out", "whole"):
        expand(ExpandSettings(output=tmp_path / name, method="average", calibrate=text))
        assert ("going on with" in capsys.readouterr().err) == (name == "out")
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"gaps": "1,2"}, {"gaps": "1,3", "seed": 1}, {"gaps": "1,3", "norm_source": "next"}]
)
def test_another_job_begins_anew(tmp_path, options, capsys):
    source, output = tiny("llama"), tmp_path / "out"
    killed_after(2, source, output, "random")
    grow(source, output, "random", **options)
    assert "removing" in capsys.readouterr().err
    grow(source, tmp_path / "whole", "random", **options)
    assert weights(output) == weights(tmp_path / "whole")


def test_another_original_of_the_same_name_begins_anew(tmp_path, capsys):
    source, output = tmp_path / "model", tmp_path / "out"
    subprocess.run(["cp", "-r", tiny("llama"), source], check=True)
    killed_after(2, source, output, "average")
    os.utime(source / "model.safetensors")
    grow(source, output, "average", gaps="1,3")
    assert "removing" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lesa", "solar"])
def test_killed_at_ten_random_moments(tmp_path, method):
    output, draw = tmp_path / "out", random.Random(0)
    command = [sys.executable, "-m", "lesa_jax.expand", "--method", method, "--output"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    longest, kills = 2.0, 0
    while kills < 10:
        process = subprocess.Popen([*command, str(output)])
        time.sleep(draw.uniform(0, longest))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        assert process.wait() in (0, -9)
        if output.exists():
            assert weights(output) == weights(tmp_path / "whole")
            subprocess.run(["rm", "-r", str(output)], check=True)
        longest = min(longest * 1.3, 12)
    subprocess.run([*command, str(output)], check=True)
    assert weights(output) == weights(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "whole"}
