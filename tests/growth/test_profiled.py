"""Growth that keeps a profile: new layers between layers of other sizes have sizes between theirs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from lesa_jax.base.errors import InputError
from lesa_jax.growth.resizing import Resize
from lesa_jax.models.config import read_config
from lesa_jax.training.run import train
from lesa_jax.training.settings import TrainSettings
from lesa_jax.ungrowth.run import ungrow
from lesa_jax.ungrowth.settings import UngrowSettings
from tests.support.growth import TOKENS, grow
from tests.support.openelm import OpenELMConfig, OpenELMForCausalLM
from tests.support.settings import nest
from tests.support.tiny import OPENELM_LIKE, tiny, torch_logits
from tests.support.tokenizers import tiny_tokenizer

RNG = np.random.default_rng(0)
LAYER = "transformer.layers.{}.{}.weight"


def model_of(folder: Path, **entries: object) -> Path:
    torch.manual_seed(0)
    model = OpenELMForCausalLM(OpenELMConfig(**(OPENELM_LIKE | entries)))
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.05)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Layers with 1, 2, 3, 3, 3, 3 heads of keys, and widths of 32, 96, 48, 48, 48, 48."""
    return model_of(tmp_path_factory.mktemp("profiled") / "model")


def sizes_of(folder: Path) -> list[tuple[int, ...]]:
    model = read_config(json.loads((folder / "config.json").read_text()))
    return [tuple(model.sizes_of(layer)) for layer in range(model.num_layers)]


def change(after: Path, before: Path) -> float:
    return (torch_logits(after, TOKENS) - torch_logits(before, TOKENS)).abs().max().item()


def test_new_layers_lie_between_and_silent_ones_change_nothing(model, tmp_path):
    report = grow(model, tmp_path / "out", "llama_pro", gaps="0,0,1,4", keep_profile=True)
    old = sizes_of(model)
    # A third and two thirds of the way from 32 to 96 wide, in steps of 8; from 1 to 2 heads of keys, two queries each.
    between = [(2, 1, 56), (4, 2, 72)]
    assert sizes_of(tmp_path / "out") == [old[0], *between, old[1], (4, 2, 72), *old[2:5], old[4], old[5]]
    assert change(tmp_path / "out", model) == 0
    assert report.function.startswith("checked")
    assert (
        sum(tensor.size for tensor in load_file(tmp_path / "out" / "model.safetensors").values())
        == (report.parameters[1])
    )


def test_a_copy_with_all_units_twice_computes_what_its_source_does(model, tmp_path):
    """Of layer 0, with twice the heads and neurons, which is as loud as the plain copy: not silent."""
    grow(model, tmp_path / "plain", "duplicate", gaps="0")
    grow(model, tmp_path / "wide", "duplicate", gaps="0", keep_profile=True)
    assert sizes_of(tmp_path / "wide")[1] == (4, 2, 64)
    assert change(tmp_path / "plain", model) > 1e-2
    assert change(tmp_path / "wide", tmp_path / "plain") < 1e-5


@pytest.mark.parametrize("gaps", ["0,0", "0,0,0"])
def test_so_does_a_copy_with_some_units_twice(tmp_path, gaps):
    folder = model_of(tmp_path / "model", num_kv_heads=[2, 5, 5, 5, 5, 5], num_query_heads=[4, *[10] * 5])
    grow(folder, tmp_path / "plain", "duplicate", gaps=gaps)
    grow(folder, tmp_path / "wide", "duplicate", gaps=gaps, keep_profile=True)
    new = sizes_of(tmp_path / "wide")[1:-5]
    assert {keys for _, keys, _ in new} == {3, 4}
    assert all(width > 32 for _, _, width in new)
    assert change(tmp_path / "wide", tmp_path / "plain") < 1e-5


def test_norms_over_all_heads_stay_where_each_is_there_twice(tmp_path):
    folder = model_of(tmp_path / "model", qk_norm="all")
    grow(folder, tmp_path / "plain", "duplicate", gaps="0")
    grow(folder, tmp_path / "wide", "duplicate", gaps="0", keep_profile=True)
    assert change(tmp_path / "wide", tmp_path / "plain") < 1e-5


def test_a_narrower_copy_keeps_the_units_that_write_most(model, tmp_path):
    grow(model, tmp_path / "out", "duplicate", gaps="1", keep_profile=True)
    before, after = (load_file(folder / "model.safetensors") for folder in (model, tmp_path / "out"))
    down = before[LAYER.format(1, "ffn.proj_2")]
    kept = np.sort(np.argsort(-np.linalg.norm(down, axis=0))[:72])
    np.testing.assert_array_equal(after[LAYER.format(2, "ffn.proj_2")], down[:, kept])
    gate_up = before[LAYER.format(1, "ffn.proj_1")]
    np.testing.assert_array_equal(after[LAYER.format(2, "ffn.proj_1")], np.r_[gate_up[:96][kept], gate_up[96:][kept]])
    # From 2 to 3 heads of keys there is nothing between; a half is rounded to what is even.
    assert sizes_of(tmp_path / "out")[2] == (4, 2, 72)


def test_units_are_taken_part_by_part():
    """Two queries, a key and a value of each head, one number wide; the second head writes most."""
    fused = np.array([[10.0], [11.0], [20.0], [21.0], [1.0], [2.0], [-1.0], [-2.0]])
    writer = np.array([[1.0, 1.0, 5.0, 0.0]])
    fewer = Resize((2, 1, 1), before=2, after=1, writer="w")
    np.testing.assert_array_equal(fewer.of(fused, writer)[:, 0], [20, 21, 2, -2])
    more = Resize((2, 1, 1), before=2, after=3, writer="w")
    np.testing.assert_array_equal(more.of(fused, writer)[:, 0], [10, 11, 20, 21, 10, 11, 1, 2, 1, -1, -2, -1])
    shared = Resize((2,), before=2, after=3, writer="w", shared=True)
    np.testing.assert_array_equal(shared.of(writer, writer), [[0.5, 0.5, 5.0, 0.0, 0.5, 0.5]])


def test_ends_beyond_the_old_layers_have_the_sizes_of_the_last(model, tmp_path):
    grow(model, tmp_path / "out", "g_stack", layers=12, keep_profile=True)
    assert sizes_of(tmp_path / "out") == sizes_of(model) + [(6, 3, 48)] * 6


@pytest.mark.parametrize(
    ("family", "method", "message"),
    [
        ("openelm", "lesa", "made of copies; choose such a method, as llama_pro or duplicate"),
        ("openelm", "average", "made of copies"),
        ("llama", "llama_pro", "is for layers that differ in size; here all are alike"),
    ],
)
def test_what_has_no_profile_or_is_no_copy_is_refused(tmp_path, family, method, message):
    with pytest.raises(InputError, match=f"--keep-profile: .*{message}"):
        grow(tiny(family), tmp_path / "out", method, gaps="3", keep_profile=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_it_trains_its_new_layers_and_shrinks_to_the_original(model, tmp_path):
    grow(model, tmp_path / "grown", "llama_pro", gaps="0,1", keep_profile=True)
    (tmp_path / "text.txt").write_text("abc def ghi jkl " * 300)
    data = {"data": str(tmp_path / "text.txt"), "eval_text": tmp_path / "text.txt", "output": tmp_path / "run"}
    options = {"steps": 12, "batch_size": 4, "sequence_length": 32, "learning_rate": 1e-2}
    result = train(nest(TrainSettings, model=str(tmp_path / "grown"), **options, **data))
    first, last = result.losses["eval_loss"]
    assert last < first - 0.1
    assert sizes_of(tmp_path / "run" / "final") == sizes_of(tmp_path / "grown")
    ungrow(UngrowSettings(model=str(tmp_path / "run" / "final"), output=tmp_path / "back"))
    before, after = (load_file(folder / "model.safetensors") for folder in (model, tmp_path / "back"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(tensor, after[name], name)
    assert sizes_of(tmp_path / "back") == sizes_of(model)
