"""Options and originals that nothing can be grown of end in one line, before anything is written."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from lesa_jax.base.errors import InputError
from lesa_jax.expand import main
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.planning.methods import PredictorSettings
from tests.support.growth import grow
from tests.support.tiny import DECODERS, SILENCEABLE, save, tiny

BAD_OPTIONS = {
    "depth below": ({"layers": 5}, "has 6 layers already"),
    "too many": ({"layers": 20000}, "too many"),
    "unknown method": ({"method": "lesaa"}, "did you mean lesa"),
    "two scales": ({"output_scale": 0.5, "calibrate": Path("x.txt")}, "leave out --output-scale"),
    "no number": ({"output_scale": float("nan")}, "must be a finite number"),
    "unknown gap": ({"gaps": "9"}, "no gap 9; a model of 6 layers has 0-4"),
    "gaps in words": ({"gaps": "top"}, "neither a number nor a range"),
    "backward range": ({"gaps": "4-2"}, "neither a number nor a range"),
    "epochs": ({"method": "lesa", "predictor": PredictorSettings(epochs=0)}, "--epochs 0: must be positive"),
    "norm weight": ({"method": "lesa", "predictor": PredictorSettings(norm_weight=1.0)}, "must lie in"),
    "rank": ({"method": "lesa", "predictor": PredictorSettings(rank=0)}, "--rank 0: must be positive"),
    "rank without": (
        {"method": "lesa_raw", "predictor": PredictorSettings(rank=8)},
        "--rank is that of an SVD: lesa_raw",
    ),
    "missing text": ({"eval_text": Path("no/such.txt")}, "cannot be read as UTF-8"),
    "missing folder": ({"model": "no/such/folder"}, "no such folder"),
    "uncached hub id": ({"model": "no-such-org/no-such-model"}, "not in its cache"),
    "revision of a folder": ({"revision": "main"}, "revisions exist only on the hub"),
}


def test_options_of_other_methods_are_said_to_change_nothing_so_that_loops_over_methods_work(tmp_path):
    options = {"seed": 1, "predictor": PredictorSettings(epochs=3)}
    plain = expand(ExpandSettings(str(tiny("llama")), tmp_path / "plain", method="solar"))
    loop = expand(ExpandSettings(str(tiny("llama")), tmp_path / "loop", method="solar", **options))
    assert loop.notes == (
        "--seed belongs to methods that compute their layers, and changes nothing for solar",
        "--epochs belongs to --method lesa, and changes nothing for solar",
        *plain.notes,
    )
    for name in ("model.safetensors", "growth.json"):
        assert (tmp_path / "loop" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_end_in_one_line_and_write_nothing(tmp_path, case):
    options, message = BAD_OPTIONS[case]
    settings = dataclasses.replace(ExpandSettings(str(tiny("llama")), tmp_path / "out"), **options)
    with pytest.raises(InputError, match=message) as caught:
        expand(settings)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("llama", {"stack": "decoder"}, "--stack decoder: the model has no encoder"),
        ("t5", {"calibrate": Path(__file__)}, "--calibrate: is for decoders alone"),
        ("t5", {"gaps": "3"}, "--gaps: no gap 3; a model of 4 layers has 0-2"),
        ("t5", {"stack": "decoder", "layers": 5}, "--layers 5: the model has 5 layers already"),
        ("bart", {"method": "llama_pro"}, "no silenced layer is the identity"),
        ("qwen3_moe", {"gaps": "0"}, "gap 0: LESA predicts from both neighbours"),
        ("openai_gpt", {"eval_text": Path(__file__)}, "'openai-gpt' has no forward pass here"),
        ("openai_gpt", {"method": "lesa_matched"}, "--method lesa_matched: is for mixtures of experts that run here"),
        ("llama", {"method": "average_matched"}, "--method average_matched: is for mixtures of experts"),
        ("llama", {"fit_routers": Path(__file__)}, "--fit-routers: is for mixtures of experts"),
        *((f, {"method": "llama_pro"}, "no silenced layer is the identity") for f in DECODERS if f not in SILENCEABLE),
    ],
)
def test_what_a_model_cannot_have_is_refused(tmp_path, family, options, message):
    with pytest.raises(InputError, match=message):
        grow(tiny(family), tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_post_norm_models_cannot_be_silenced(tmp_path):
    source = save(tmp_path / "source", "opt")
    config = json.loads((source / "config.json").read_text()) | {"do_layer_norm_before": False}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="no silenced layer is the identity"):
        grow(source, tmp_path / "out", "llama_pro")


def test_nan_weights_are_named_and_nothing_is_written(tmp_path, capsys):
    source = save(tmp_path / "source", "llama")
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][1, 2] = float("nan")
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(InputError, match=r"tensor model.layers.2.mlp.up_proj.weight holds NaN"):
        grow(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_the_command_prints_one_line_and_exits_with_2(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["expand", "--model", str(tmp_path), "--output", str(tmp_path / "out")])
    assert main() == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
