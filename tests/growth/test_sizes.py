"""Models whose layers differ in size: copies fit everywhere, what is computed fits between layers that are alike."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from lesa_jax.analysis.run import analyze
from lesa_jax.analysis.settings import AnalyzeSettings
from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint, read
from lesa_jax.evaluation.run import EvaluateSettings, evaluate
from lesa_jax.models.config import read_config
from lesa_jax.training.run import train
from lesa_jax.training.settings import TrainSettings
from lesa_jax.ungrowth.run import ungrow
from lesa_jax.ungrowth.settings import UngrowSettings
from tests.support.growth import TOKENS, grow
from tests.support.openelm import OpenELMConfig, OpenELMForCausalLM
from tests.support.settings import nest
from tests.support.tiny import OPENELM_LIKE, torch_logits
from tests.support.tokenizers import tiny_tokenizer
from tests.support.training import losses

# Heads are alike in layers 0 to 3, widths in 1 to 4: only 1 to 3 are alike in both.
OVERLAPPING = OPENELM_LIKE | {
    "num_query_heads": [4, 4, 4, 4, 2, 4],
    "num_kv_heads": [2, 2, 2, 2, 1, 2],
    "ffn_multipliers": [1.0, 3.0, 3.0, 3.0, 3.0, 1.5],
    "norm_scales": [1.0, 0.7, 0.6, 0.5, 0.45, 0.4],
}
LAYERS = "transformer.layers."


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with such a model, its tokenizer beside it, and a text."""
    folder = tmp_path_factory.mktemp("sizes")
    torch.manual_seed(0)
    model = OpenELMForCausalLM(OpenELMConfig(**OVERLAPPING))
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.05)
    model.save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    (folder / "text.txt").write_text("abc def ghi jkl " * 300)
    return folder


def sizes_of(folder: Path) -> list[tuple[int, ...]]:
    model = read_config(json.loads((folder / "config.json").read_text()))
    return [tuple(model.sizes_of(layer)) for layer in range(model.num_layers)]


@pytest.mark.parametrize("method", ["llama_pro", "solar", "duplicate", "g_stack", "lemon", "identity_next"])
def test_copies_fit_everywhere_in_the_sizes_of_what_they_copy(place, tmp_path, method):
    report = grow(place / "model", tmp_path / "out", method)
    before, above = sizes_of(place / "model"), method == "identity_next"
    places = [min(slot.layer + (above and slot.new), 5) for slot in report.plan.slots]
    assert sizes_of(tmp_path / "out") == [before[layer] for layer in places]
    change = (torch_logits(tmp_path / "out", TOKENS) - torch_logits(place / "model", TOKENS)).abs().max()
    assert (change == 0) == (method in ("llama_pro", "lemon", "identity_next"))
    assert not report.function.startswith("not verified")


@pytest.mark.parametrize("method", ["average", "opt_deus"])
def test_between_like_layers_is_computed_what_is_computed_in_a_model_of_these_alone(place, tmp_path, method):
    """Whatever is alike beyond them: attention in layer 0, the feed-forward network in layer 4."""
    (tmp_path / "alike").mkdir()
    alike = {key: value[1:4] if isinstance(value, list) else value for key, value in OVERLAPPING.items()}
    config = alike | {"model_type": "openelm", "num_transformer_layers": 3}
    (tmp_path / "alike" / "config.json").write_text(json.dumps(config))
    tensors = {}
    for name, tensor in load_file(place / "model" / "model.safetensors").items():
        layer, _, rest = name.removeprefix(LAYERS).partition(".")
        if not name.startswith(LAYERS):
            tensors[name] = tensor
        elif layer in "123":
            tensors[f"{LAYERS}{int(layer) - 1}.{rest}"] = tensor
    save_file(tensors, tmp_path / "alike" / "model.safetensors", {"format": "pt"})
    grow(place / "model", tmp_path / "out", method, gaps="1,2")
    grow(tmp_path / "alike", tmp_path / "few", method, gaps="0,1")
    out, few = (open_checkpoint(tmp_path / name) for name in ("out", "few"))
    compared = 0
    for name in few.entries:
        layer, _, rest = name.removeprefix(LAYERS).partition(".")
        if name.startswith(LAYERS):
            np.testing.assert_array_equal(read(few, name), read(out, f"{LAYERS}{int(layer) + 1}.{rest}"), name)
            compared += layer in "13"  # the new ones
    assert compared >= 12


def test_lesa_predicts_inside_a_run(place, tmp_path):
    grow(place / "model", tmp_path / "out", "lesa_published", gaps="1,2")
    assert sizes_of(tmp_path / "out")[1:6] == [(4, 2, 96)] * 5
    change = torch_logits(tmp_path / "out", TOKENS) - torch_logits(place / "model", TOKENS)
    assert change.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("method", "gap", "layers"),
    [("lesa", 0, "1-4"), ("average", 3, "0-3"), ("random", 4, "4-4"), ("opt_deus", 0, "0-0"), ("lesa", 4, "4-4")],
)
def test_between_unequal_layers_what_is_computed_is_refused(place, tmp_path, method, gap, layers):
    with pytest.raises(InputError, match=rf"gap {gap}: .*both neighbours.* one shape in layers \d-\d only") as caught:
        grow(place / "model", tmp_path / "out", method, gaps=str(gap))
    assert "\n" not in str(caught.value)
    assert "llama_pro, duplicate" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_is_grown_is_evaluated_analysed_trained_and_shrunk_again(place, tmp_path):
    grown = tmp_path / "grown"
    grow(place / "model", grown, "llama_pro", gaps="0,3,4")
    before, after = (
        evaluate(EvaluateSettings(model=str(folder), text=place / "text.txt")) for folder in (place / "model", grown)
    )
    assert before["nll"] == after["nll"]
    found = analyze(AnalyzeSettings(model=str(grown), text=place / "text.txt", output=tmp_path / "analysis"))
    assert len(found.measured.layers) == 9
    data = {"data": str(place / "text.txt"), "output": tmp_path / "run"}
    train(nest(TrainSettings, model=str(grown), steps=4, batch_size=4, sequence_length=32, learning_rate=1e-2, **data))
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0]
    assert sizes_of(tmp_path / "run" / "final") == sizes_of(grown)
    ungrow(UngrowSettings(model=str(grown), output=tmp_path / "back"))
    for name in ("model.safetensors", "config.json"):
        ours, theirs = ((folder / name).read_bytes() for folder in (tmp_path / "back", place / "model"))
        assert ours == theirs or json.loads(ours) == json.loads(theirs)
