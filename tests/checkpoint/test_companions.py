"""What goes along with the weights, and what stays behind with a word."""

import json
import re
from pathlib import Path

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.companions import LARGEST, carry, files_to_carry, left_behind
from tests.support.tiny import tiny


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder as the hub has them."""
    folder = tmp_path / "model"
    for name in (
        *("config.json", "model.safetensors", "README.md", "LICENSE", "generation_config.json", "modeling_own.py"),
        *("tokenizer.json", "merges.txt", "chat_template.jinja", ".gitattributes", ".cache/x.json"),
        *("additional_chat_templates/tools.jinja", "additional_chat_templates/rag.jinja"),
        *("adapter_config.json", "adapter_model.safetensors", "consolidated.safetensors", "pytorch_model.bin"),
        *("pytorch_model.bin.index.json", "optimizer.pt", "original/params.json", "onnx/model.onnx"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def names(folder: Path) -> list[str]:
    return [str(file.relative_to(folder)) for file in files_to_carry(folder)]


def large(file: Path) -> Path:
    """A sparse file beyond what goes along of files that are not the tokenizer's."""
    with file.open("wb") as stream:
        stream.truncate(LARGEST + 1)
    return file


def test_small_files_and_additional_chat_templates_go_along(model, tmp_path):
    assert names(model) == [
        *("LICENSE", "chat_template.jinja", "generation_config.json", "merges.txt", "modeling_own.py"),
        *("tokenizer.json", "additional_chat_templates/rag.jinja", "additional_chat_templates/tools.jinja"),
    ]
    (tmp_path / "output").mkdir()
    carry(files_to_carry(model), model, tmp_path / "output")
    for name in names(model):
        assert (tmp_path / "output" / name).read_text() == name


def test_what_stays_behind_is_named_with_its_reason(model):
    large(model / "corpus.txt")
    (model / "gone.txt").symlink_to("none")
    found = dict(re.fullmatch(r"(\S+) \((.*)\)", line).groups() for line in left_behind(model))
    weights = "weights, or state of training, that model.safetensors and model.safetensors.index.json do not name"
    assert found == {
        "adapter_config.json": "of an adapter, which fits the original only; merge it into the weights first",
        "adapter_model.safetensors": "of an adapter, which fits the original only; merge it into the weights first",
        **dict.fromkeys(
            ["consolidated.safetensors", "optimizer.pt", "pytorch_model.bin", "pytorch_model.bin.index.json"], weights
        ),
        "corpus.txt": "67.1 MB; files that are not the tokenizer's go along up to 67.1 MB",
        "gone.txt": "a link to none, which is not there",
        "onnx": "a subfolder",
        "original": "a subfolder",
    }


def test_nothing_is_both_carried_and_left_behind_nor_forgotten(model):
    large(model / "large.json")
    carried = {name.split("/")[0] for name in names(model)}
    behind = {line.split(" (")[0] for line in left_behind(model)}
    visible = {path.name for path in model.iterdir() if not path.name.startswith(".")}
    assert carried.isdisjoint(behind)
    assert visible - carried - behind == {"config.json", "README.md", "model.safetensors"}


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt", "own.tiktoken"])
def test_a_tokenizer_goes_along_whatever_its_size(model, name):
    large(model / name)
    assert name in names(model)
    assert not [line for line in left_behind(model) if name in line]


def test_the_shards_of_the_model_are_not_left_behind(model):
    (model / "model.safetensors").unlink()
    (model / "model-1.safetensors").write_text("x")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    assert not [line for line in left_behind(model) if line.startswith("model")]
    assert not [name for name in names(model) if name.startswith("model-") or name.endswith(".index.json")]


def test_a_whole_checkpoint_leaves_nothing_behind_nor_does_a_config_alone(tmp_path):
    assert left_behind(tiny("llama")) == []
    (tmp_path / "config.json").write_text("{}")
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("name", ["note.txt", "additional_chat_templates/x.jinja", "additional_chat_templates"])
def test_no_link_out_of_the_folder_is_followed(model, tmp_path, name):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.jinja").write_text("secret")
    if name == "additional_chat_templates":
        (model / name).rename(model / "other")
    target = tmp_path / "outside" if name == "additional_chat_templates" else tmp_path / "outside" / "x.jinja"
    (model / name).symlink_to(target)
    with pytest.raises(InputError, match="outside the checkpoint's folder"):
        files_to_carry(model)


def test_templates_of_the_hubs_cache_go_along(tmp_path):
    snapshot = tmp_path / "snapshots" / "commit"
    (snapshot / "additional_chat_templates").mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "b1").write_text("template")
    (snapshot / "chat_template.jinja").symlink_to("../../blobs/b1")
    (snapshot / "additional_chat_templates" / "tools.jinja").symlink_to("../../../blobs/b1")
    assert names(snapshot) == ["chat_template.jinja", "additional_chat_templates/tools.jinja"]
