"""The command from end to end: what it prints and writes, and that wrong options end in one line."""

import json
import subprocess
import sys

import pytest

from lesa_jax.command import run_command
from lesa_jax.profiles.report import print_report
from lesa_jax.profiles.run import profile
from lesa_jax.profiles.settings import ProfileSettings

CROWN = ["crown", "--layers", "18", "--hidden-size", "768", "--head-dim", "64", "--kv-ratio", "3"]
CROWN_FFN = [3072, 768, 1024, 1280, 1536, 2048, 2304, 2560, 2816, 2816, 2560, 2304, 2048, 1536, 1280, 1024, 768, 3072]
CROWN_HEADS = [12, 9, 9, 9, 9, 9, 12, 12, 12, 12, 12, 12, 9, 9, 9, 9, 9, 12]


def run(*argv):
    return run_command(profile, ProfileSettings, print_report, argv)


def printed(capsys, *argv):
    assert run(*argv, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_fresh_process_prints_json_and_imports_no_jax():
    code = f"""
import sys
sys.argv = {["lesa", "profile", *CROWN, "--json"]}
from lesa_jax.__main__ import main
assert main() == 0
import lesa_jax.profile
assert not {{"jax", "torch", "transformers"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        "profile": "crown",
        "ffn": CROWN_FFN,
        "q_heads": CROWN_HEADS,
        "kv_heads": [heads // 3 for heads in CROWN_HEADS],
        "parameters": 129_202_176,
        "ffn_points": [0.5, 3.8, 0.5],
        "head_points": [0.5, 1.0, 0.5],
    }


def test_points_vocabulary_and_head_are_the_users(capsys):
    openelm = ["vanilla", "--ffn", "0.5,4", "--layers", "16", "--hidden-size", "1280", "--kv-ratio", "4"]
    assert printed(capsys, *openelm)["parameters"] == 271_527_168
    assert printed(capsys, *openelm, "--no-tied")["parameters"] == 271_527_168 + 32000 * 1280
    assert printed(capsys, *openelm, "--vocab-size", "100")["parameters"] == 271_527_168 - 31900 * 1280
    assert printed(capsys, *CROWN, "--heads", "1")["q_heads"] == [12] * 18
    rounded = ["isotropic", "--layers", "1", "--hidden-size", "640", "--ffn", "1", "--ffn-divisor", "192"]
    assert printed(capsys, *rounded)["ffn"] == [576]
    assert printed(capsys, *rounded, "--rounding", "olmo")["ffn"] == [768]


def test_a_budget_and_the_config_that_has_it(capsys, tmp_path):
    file = tmp_path / "crown" / "config.json"
    found = printed(capsys, *CROWN, "--parameters", "120M", "--config", str(file))
    assert abs(found["parameters"] / 120e6 - 1) <= 0.01
    config = json.loads(file.read_text())
    assert (config["model_type"], config["num_transformer_layers"], config["model_dim"]) == ("openelm", 18, 768)
    assert config["num_query_heads"] == found["q_heads"] == CROWN_HEADS
    heads = sum(2 * (q + kv) for q, kv in zip(config["num_query_heads"], config["num_kv_heads"], strict=True))
    widths = sum(round(m * 768 / 256) * 256 for m in config["ffn_multipliers"])
    norms = 18 * (2 * 768 + 2 * 64) + 768
    assert found["parameters"] == 768 * (heads * 64 + 3 * widths + config["vocab_size"]) + norms
    assert [path.name for path in file.parent.iterdir()] == ["config.json"]


def test_all_five_have_an_equal_budget(capsys):
    found = printed(capsys)
    assert list(found) == ["isotropic", "vanilla", "framed", "reverse", "crown"]
    budget = found["isotropic"]["parameters"]
    assert all(abs(each["parameters"] / budget - 1) <= 0.01 for each in found.values())


def test_explicit_lists(capsys):
    found = printed(capsys, "explicit", "--layers", "3", "--ffn", "512, 256,768", "--heads", "3,6,9")
    assert found.keys() == {"profile", "ffn", "q_heads", "kv_heads", "parameters"}
    assert (found["ffn"], found["q_heads"], found["kv_heads"]) == ([512, 256, 768], [3, 6, 9], [1, 2, 3])


def test_tables_name_every_layer_and_every_profile(capsys, tmp_path):
    assert run(*CROWN, "--parameters", "129202176", "--config", str(tmp_path / "config.json")) == 0
    shown = capsys.readouterr().out
    assert sum(line.startswith("│") for line in shown.splitlines()) == 18
    assert "crown, ffn 0.5, 3.8, 0.5, heads 0.5, 1, 0.5: 129,202,176 parameters (+0.00% of 129,202,176)\n" in shown
    assert f"written to {tmp_path / 'config.json'}\n" in shown
    assert run() == 0
    shown = capsys.readouterr().out
    assert all(f"│ {name}" in shown for name in ("isotropic", "vanilla", "framed", "reverse", "crown"))


BAD = {
    "out of reach": ([*CROWN, "--parameters", "50M"], "--parameters 50,000,000: not reachable: crown with 18 layers"),
    "between steps": (["isotropic", "--parameters", "125M"], "comes no nearer than 120,158,208, as widths go in steps"),
    "no number": (["crown", "--parameters", "many"], "--parameters many: expected a whole number"),
    "too short": (["explicit", "--ffn", "256,256", "--heads", "3,3"], "--ffn: 2 widths for 18 layers; give one for"),
    "heads too short": (
        ["explicit", "--layers", "2", "--ffn", "256,256", "--heads", "3"],
        "--heads: 1 numbers of heads for 2 layers; give one for each layer, or change --layers",
    ),
    "heads that do not divide": (
        ["explicit", "--layers", "2", "--ffn", "256,256", "--heads", "3,4"],
        "--heads: layer 1 has 4 query heads, which --kv-ratio 3 does not divide; change one of them",
    ),
    "width that cannot be said": (
        ["explicit", "--layers", "1", "--ffn", "300", "--heads", "3"],
        "--ffn: layer 0 has width 300, no multiple of --ffn-divisor 256, to which readers of the config would round it",
    ),
    "no list": (["explicit", "--ffn", "256"], "--heads: explicit takes a positive number for each layer, such as 3,6"),
    "no widths": (["explicit", "--ffn", "a,b", "--heads", "3"], "--ffn a,b: explicit takes a positive number for each"),
    "a budget for lists": (
        ["explicit", "--ffn", "256", "--heads", "3", "--parameters", "1M"],
        "--parameters: explicit lists have no point that could move; leave it out, or name one of isotropic, vanilla",
    ),
    "points for all": (["--ffn", "0.5,4"], "--ffn: all compares the five as they are; leave it out, or name one of"),
    "a config of all": (["--config", "x.json"], "--config: all compares the five as they are"),
    "points too many": (
        ["vanilla", "--ffn", "1,2,3"],
        "--ffn 1,2,3: 3 points, but vanilla goes through 2 points, or 1 for all layers; to give each layer's, name",
    ),
    "points that are none": (["vanilla", "--heads", "a"], "--heads a: expected multiples of --hidden-size, up to 16"),
    "points below zero": (["vanilla", "--ffn=-1,2"], "--ffn -1,2: expected multiples of --hidden-size"),
    "points without end": (["vanilla", "--ffn", "1,inf"], "--ffn 1,inf: expected multiples of --hidden-size"),
    "too few layers": (["crown", "--layers", "2"], "--layers 2: crown goes through 3 points; take 3 or more"),
    "no layers": (["crown", "--layers", "0"], "--layers 0: expected 1 to 10000"),
    "no width": (["crown", "--hidden-size", "-3"], "--hidden-size -3: expected 1 to"),
    "an odd head": (["crown", "--head-dim", "63"], "--head-dim 63: rotary positions turn pairs; take an even number"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_no_model_can_have_ends_in_one_line(case, capsys):
    argv, message = BAD[case]
    assert run(*argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: --")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_config_that_is_there_stays(tmp_path, capsys):
    file = tmp_path / "config.json"
    file.write_text("{}")
    assert run(*CROWN, "--config", str(file)) == 2
    assert "is there already; name a file that is not" in capsys.readouterr().err
    assert file.read_text() == "{}"
