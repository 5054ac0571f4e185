"""Only what name and shape call a linear layer's matrix is predicted; the rest follows --norm-source, and is named."""

import json

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from lesa_jax.growth.report import print_report
from tests.support.every_type import save_type
from tests.support.growth import grow


@pytest.mark.parametrize("source", ["first", "next"])
def test_kernels_and_state_spaces_are_taken_over(tmp_path, source):
    kinds = {"mamba.A_log", "mamba.conv1d", "feed_forward.router"}
    folder = save_type("jamba", tmp_path / "jamba", attn_layer_period=7, attn_layer_offset=6, expert_layer_period=1,
                       expert_layer_offset=0, num_experts=1)  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "unheard_of"}  # as jamba it would be refused for its periods
    for key in ("attn_layer_period", "attn_layer_offset"):
        del config[key]
    (folder / "config.json").write_text(json.dumps(config))
    report = grow(folder, tmp_path / "out", "average", gaps="2", norm_source=source)
    assert set(report.not_predicted) == kinds
    assert not kinds & report.kinds.keys()
    assert "mamba.in_proj" in report.kinds
    assert set(json.loads((tmp_path / "out" / "growth.json").read_text())["measurements"]["not_predicted"]) == kinds
    console = Console(record=True, width=300)
    print_report(report, console)
    assert (
        "not predicted  feed_forward.router, mamba.A_log, mamba.conv1d: taken over by --norm-source"
        in console.export_text()
    )
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    layer = {"first": 0, "next": 3}[source]
    for kind in ("A_log", "conv1d.weight"):
        np.testing.assert_array_equal(
            after[f"model.layers.3.mamba.{kind}"], before[f"model.layers.{layer}.mamba.{kind}"]
        )


def test_a_kernel_with_as_many_channels_as_experts_is_none(tmp_path):
    """Its shape alone is that of packed experts."""
    folder = save_type("lfm2_moe", tmp_path / "lfm2", layer_types=["conv"] * 6, num_experts=32, num_dense_layers=0)
    report = grow(folder, tmp_path / "out", "average", gaps="2")
    assert "conv.conv" in report.not_predicted
    assert "feed_forward.experts.*.w3" in report.kinds
