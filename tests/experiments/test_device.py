"""The benchmark of a device, on a CPU."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

# experiments/ is no package: its scripts are run, and import one another by name.
sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "bench"))

import device
import device_report
import device_train

from lesa_jax.parallel.mesh import make_mesh
from lesa_jax.training.cost import step_bytes
from lesa_jax.training.sharding import leaf_shardings

H100 = {"kind": "NVIDIA H100 80GB HBM3", "bfloat16": 7e14, "float32": 5e13, "copy": 3e12}
STEP = {
    "case": "a model",
    "sequences": 2,
    "tokens": 512,
    "step": 0.5,
    "compiling": 9.0,
    "flops": 989.4e12 * 0.2,
    "nbytes": 3.35e12 * 0.1,
    "peak_memory": 7.5e9,
    "state": 5e9,
}


def test_a_step_stands_beside_its_floors():
    header, [row] = device_report.training_table([STEP], H100)
    found = dict(zip(header, row, strict=True))
    assert (found["tokens/s"], found["MFU"], found["peak memory, GB"]) == ("2048", "40.0%", "7.5")
    assert (found["floor by operations, s"], found["floor by bytes, s"], found["step / floor"]) == (
        "0.2",
        "0.1",
        "2.50",
    )


def test_a_device_without_a_data_sheet_is_judged_by_its_own_rates():
    header, [row] = device_report.training_table([STEP], H100 | {"kind": "another"})
    found = dict(zip(header, row, strict=True))
    assert found["MFU"] == "-"
    assert float(found["floor by operations, s"]) == pytest.approx(STEP["flops"] / 7e14, rel=1e-2)
    assert float(found["floor by bytes, s"]) == pytest.approx(STEP["nbytes"] / 3e12, rel=1e-2)


@pytest.mark.parametrize(
    ("second", "verdict"), [(4.0, True), (4.00001, True), (4.001, False), (float("nan"), False), (None, False)]
)
def test_a_figure_passes_within_its_tolerance_only(second, verdict):
    stored = {"loss, 20 steps": [3.0, 4.0]}
    measured = {"loss, 20 steps": [3.0] if second is None else [3.0, second]}
    assert device_report.passes("loss, 20 steps", measured, stored) == verdict
    _, [row] = device_report.parity_table(measured, stored)
    assert ("PASS" in row, "**FAIL**" in row) == (verdict, not verdict)


def test_a_figure_that_was_not_measured_fails():
    stored = {"loss, 20 steps": [3.0, 4.0]}
    assert not device_report.passes("loss, 20 steps", {}, stored)
    _, [row] = device_report.parity_table({}, stored)
    assert "**FAIL**" in row


def test_every_stored_figure_has_a_tolerance():
    assert set(json.loads(device.STORED.read_text())["figures"]) == set(device_report.TOLERANCES)


def test_bytes_of_a_step_are_those_of_the_weights_that_it_needs():
    """The layers are 0 1 +1 2 +2 3: of 6 two are new, two frozen ones above them have a backward pass."""
    config, _, leaves, _ = device_train.grown(device_train.CASES["tiny_new"])
    alone = leaf_shardings(leaves, make_mesh({"data": 1, "fsdp": 1, "expert": 1, "tensor": 1}))
    layer = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64 + 2 * 64
    final_norm, head = 64, 512 * 64
    frozen, trained = 4 * layer + 2 * layer + final_norm + head, 2 * layer
    assert step_bytes(config, leaves, alone, "bfloat16") == 2 * frozen + 40 * trained


def test_what_does_not_fit_is_a_row_and_the_next_batch_is_tried(capfd):
    huge = device_train.TINY | {"hidden_size": 1 << 20, "vocab_size": 1 << 24}
    case = replace(device_train.CASES["tiny_new"], config=huge)
    device_train.measure_first_that_fits(case, ((2, 8), (1, 8)))
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["case"] for row in rows] == ["tiny, new, 2 x 8 tokens", "tiny, new, 1 x 8 tokens"]
    assert all("RESOURCE_EXHAUSTED" in row["failed"] for row in rows)


def test_rows_of_a_part_that_ends_badly_stay(tmp_path):
    script = tmp_path / "part.py"
    script.write_text(
        "import sys, time\nprint('{\"a\": 1}', flush=True)\nprint('why', file=sys.stderr, flush=True)\n"
        "time.sleep(600) if sys.argv[1] == 'slow' else sys.exit(3)\n"
    )
    rows = device.run_part(device.Part("section", str(script), ("bad",), 9), 60, os.environ)
    assert rows == [{"a": 1}, {"case": "section bad", "failed": "exit code 3: why"}]
    rows = device.run_part(device.Part("section", str(script), ("slow",), 9), 1, os.environ)
    assert rows == [{"a": 1}, {"case": "section slow", "failed": "not finished in 1 s"}]


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu(tmp_path):
    output = tmp_path / "device.md"
    command = [sys.executable, device.HERE / "device.py", "--tiny", "--limit", "1200", "--output", output]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    text = output.read_text()
    assert "failed" not in text
    assert text.count("PASS") == len(device_report.TOLERANCES)
    found = json.loads(output.with_suffix(".json").read_text())
    assert [row["sequences"] * row["tokens"] for row in found["training"]] == [32, 128, 128]
    assert all(row["step"] > 0 for row in found["training"])
