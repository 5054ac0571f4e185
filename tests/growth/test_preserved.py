"""A grown model that would not compute what the original computes is not published."""

import json

import numpy as np
import pytest
from rich.console import Console

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.growth import run
from lesa_jax.growth.preserved import TOKENS, check_preserved
from lesa_jax.growth.report import print_report
from lesa_jax.planning.placement import make_plan
from tests.support.changed import changed_copy
from tests.support.growth import grow
from tests.support.tiny import RUNNING, tiny

PLAN = make_plan(6, "identity", gaps=[1, 4])  # 0 1 +1 2 3 4 +4 5


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    folders = {}
    for family in ("qwen2", "llama"):
        folders[family] = tmp_path_factory.mktemp(family) / "out"
        grow(tiny(family), folders[family], "identity", gaps="1,4")
    return folders


def tiny_output(weights):
    weights["model.layers.2.mlp.down_proj.weight"][3, 3] = 1e-6


def swapped(weights):
    for name in [name for name in weights if name.startswith("model.layers.3.")]:
        other = name.replace("layers.3", "layers.4")
        weights[name], weights[other] = weights[other], weights[name]


def another_old(weights):
    weights["model.layers.7.input_layernorm.weight"][0] += 1e-3


def another_head(weights):
    weights["lm_head.weight"][-1, -1] += 1e-3


DAMAGES = {
    "a small number in a silenced projection": ("llama", tiny_output, {}, "new layer 2 is not silent"),
    "layers in another order": ("llama", swapped, {}, "layer 3 is not the original's layer 2"),
    "another old norm": ("llama", another_old, {}, "layer 7 is not the original's layer 5"),
    "another head": ("llama", another_head, {}, "its logits differ"),
    "another window": ("qwen2", None, {"sliding_window": 9}, "other windows"),
    "other kinds of layers": ("qwen2", None, {"layer_types": ["sliding_attention"] * 8}, "other windows"),
    "another rotation": ("llama", None, {"rope_parameters": {"rope_theta": 5.0}}, "another kind of model"),
    "another epsilon": ("llama", None, {"rms_norm_eps": 1e-3}, "another kind of model"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_what_differs_is_found_and_named(tmp_path, grown, case):
    family, tensors, entries, message = DAMAGES[case]
    folder = changed_copy(grown[family], tmp_path / "changed", tensors, **entries)
    with pytest.raises(InputError, match=message) as caught:
        check_preserved(open_checkpoint(tiny(family)), folder, PLAN)
    assert "\n" not in str(caught.value)


FIRST = ("llama", "gemma2", "gpt2", "mixtral", "t5", "bart")


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in FIRST else [pytest.mark.slow]) for name in RUNNING]
)
def test_every_family_that_runs_is_checked_and_says_so(tmp_path, family):
    report = grow(tiny(family), tmp_path / "out", "llama_pro")
    assert report.function == f"checked: on {TOKENS} tokens the logits are the original's, to the bit"
    assert "verify" in report.seconds
    assert json.loads((tmp_path / "out" / "growth.json").read_text())["measurements"]["function"] == report.function
    assert report.function in (tmp_path / "out" / "README.md").read_text()


def test_a_dry_run_and_a_family_that_does_not_run_say_how_it_is_known(tmp_path):
    dry = grow(tiny("llama"), tmp_path / "out", "llama_pro", dry_run=True)
    assert dry.function == "to be checked: both models will run on a few tokens"
    source = changed_copy(tiny("gpt2"), tmp_path / "source", add_cross_attention=True)  # which is not run
    known = grow(source, tmp_path / "gpt2", "llama_pro")
    assert known.function.startswith("not run, as gpt2 has no forward pass here; unchanged by")


def test_a_type_that_nobody_knows_is_not_verified_whatever_the_method(tmp_path):
    source = changed_copy(tiny("phi"), tmp_path / "source", model_type="unheard_of", foo_layer_interval=2)
    for method in ("llama_pro", "duplicate"):
        report = grow(source, tmp_path / method, method)
        assert report.function.startswith("not verified: model_type unheard_of is not among those that are known; ")
        assert "foo_layer_interval" in report.function
        assert report.function in (tmp_path / method / "README.md").read_text()
        console = Console(record=True, width=300)
        print_report(report, console)
        assert f"function  {report.function}" in console.export_text()


def test_a_method_that_changes_the_function_is_not_asked(tmp_path):
    report = grow(tiny("llama"), tmp_path / "out", "duplicate")
    assert (report.function, "verify" in report.seconds) == ("", False)


def test_a_difference_is_not_published(tmp_path, monkeypatch):
    """A config that gives an old layer another window, as a fault in growing it would."""
    write = run.write_json

    def other_window(path, value):
        write(path, value | {"layer_types": ["sliding_attention"] * 9} if path.name == "config.json" else value)

    monkeypatch.setattr(run, "write_json", other_window)
    with pytest.raises(InputError, match="would not compute what the original computes"):
        grow(tiny("qwen2"), tmp_path / "out", "llama_pro")
    assert not (tmp_path / "out").exists()


def test_a_layer_with_a_row_less_is_refused_before_anything_is_written(tmp_path):
    def cut(weights):
        weights["model.layers.3.mlp.up_proj.weight"] = np.ascontiguousarray(
            weights["model.layers.3.mlp.up_proj.weight"][:-1]
        )

    for family in ("llama", "qwen3"):  # with a forward pass, and without
        source = changed_copy(tiny(family), tmp_path / family, cut)
        with pytest.raises(
            InputError, match=r"model\.layers\.3\.mlp\.up_proj\.weight is \[47, 32\], but is \[48, 32\]"
        ):
            grow(source, tmp_path / "out", "duplicate")
        assert not (tmp_path / "out").exists()
