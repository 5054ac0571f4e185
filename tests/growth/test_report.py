"""What is shown of an expansion."""

from dataclasses import replace

import pytest
from rich.console import Console

from lesa_jax.growth.report import print_report
from tests.support.growth import grow
from tests.support.tiny import tiny


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return grow(tiny("llama"), tmp_path_factory.mktemp("grown") / "out", "duplicate")


def shown(report) -> str:
    console = Console(record=True, width=300)
    print_report(report, console)
    return console.export_text()


def test_a_model_that_the_new_layers_break_is_not_handed_out_in_silence(report):
    assert "harmful" not in shown(report)  # nothing was measured
    assert "harmful" not in shown(replace(report, perplexity={"before": 20.0, "after": 29.0}))
    text = shown(replace(report, perplexity={"before": 27.6, "after": 262.7}))
    assert "multiply the perplexity by 9.52" in text
    assert "--calibrate TEXT" in text
    assert "harmful" in shown(replace(report, perplexity={"before": 27.6, "after": float("inf")}))
