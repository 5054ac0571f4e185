"""Hardware by its name, and what is said where it or its compiler is not there."""

from pathlib import Path

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.parallel import targets
from lesa_jax.parallel.targets import CHIPS, parse_target, target_devices
from lesa_jax.training.peaks import peak_of


@pytest.mark.parametrize(
    ("name", "chips", "kind", "topology"),
    [
        ("v5e:4x4", 16, "TPU v5 lite", "v5e:4x4"),
        ("v5e:16x16", 256, "TPU v5 lite", "v5e:16x16"),
        ("v6e:4x4", 16, "TPU v6 lite", "v6e:4x4"),
        ("v5p:4x4x4", 64, "TPU v5", "v5p:4x4x4"),
        ("h100", 1, "NVIDIA H100 80GB HBM3", "1x1x1"),
        ("h100x8", 8, "NVIDIA H100 80GB HBM3", "1x1x8"),
        ("h100x64", 64, "NVIDIA H100 80GB HBM3", "1x8x8"),
    ],
)
def test_names_are_chips_and_a_topology(name, chips, kind, topology):
    target = parse_target(name)
    assert (target.chips, target.chip.kind, target.topology) == (chips, kind, topology)


@pytest.mark.parametrize("name", ["", "v5e", "v5e:16", "v5e:4x4x4", "v5p:4x4", "v7x:2x2", "a100", "h100x0", "v5e:0x4"])
def test_other_names_are_refused_with_those_that_there_are(name):
    with pytest.raises(InputError, match="v5e:4x4, v6e:4x4 or v5p:4x4x4, or GPUs such as h100, h100x8"):
        parse_target(name)


def test_gpus_come_in_nodes():
    with pytest.raises(InputError, match="ask for 1 to 7 or for a multiple of 8"):
        parse_target("h100x12")


@pytest.mark.parametrize(("name", "command"), [("v5e:4x4", "pip install libtpu"), ("h100", "jax-cuda12-plugin")])
def test_a_missing_compiler_is_one_line_with_the_command(name, command, monkeypatch):
    monkeypatch.setattr(targets, "installed", lambda module: False)
    with pytest.raises(InputError, match=command):
        target_devices(parse_target(name))


def test_the_commands_install_what_the_requirements_name():
    lines = (Path(__file__).parents[2] / "requirements-compilers.txt").read_text().splitlines()
    named = {line for line in lines if line and not line.startswith("#")}
    commands = " ".join(targets.COMPILERS.values()).replace('"', "").split()
    assert named == {word for word in commands if "==" in word}


def test_every_chip_has_a_peak():
    assert all(peak_of(chip.kind) for chip in CHIPS.values())


def test_beyond_a_node_gpus_talk_through_their_adapters():
    assert parse_target("h100x8").network == 9 * parse_target("h100x16").network
    assert parse_target("v5e:16x16").network == parse_target("v5e:4x4").network
