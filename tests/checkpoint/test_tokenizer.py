"""A tokenizer that is damaged, in whatever way, ends in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.tokenizer import check_vocabulary, load_tokenizer, tokenizer_errors
from lesa_jax.demo import MODEL_DIRECTORY

FOLDER = object()


def demo_file(name: str, **changes: Any) -> str:
    return json.dumps(json.loads((MODEL_DIRECTORY / name).read_text()) | changes)


def folder_with(folder: Path, name: str, content: Any) -> Path:
    """The demo's tokenizer, one of its files replaced: by bytes, a string, a folder, or nothing."""
    for own in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / own).write_bytes((MODEL_DIRECTORY / own).read_bytes())
    (folder / name).unlink(missing_ok=True)
    if content is FOLDER:
        (folder / name).mkdir()
    elif content is not None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def model(**changes: Any) -> str:
    return demo_file("tokenizer.json", model=json.loads(demo_file("tokenizer.json"))["model"] | changes)


def config(**changes: Any) -> str:
    return demo_file("tokenizer_config.json", **changes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("tokenizer.json", text) for text in ("", "{", "[]", "null", "3", "{}", b"\xff\xfe", "[" * 100_000)),
        *(("tokenizer.json", content) for content in (None, FOLDER, model(vocab=[1]), model(vocab={"a": -1}))),
        *(("tokenizer.json", demo_file("tokenizer.json", model=kind)) for kind in (None, "x")),
        *(("tokenizer.json", demo_file("tokenizer.json", added_tokens=kind)) for kind in ("x", None, [{"id": "x"}])),
        *(("tokenizer_config.json", text) for text in ("", "{", "[]", "null", b"\xff", "[" * 100_000, FOLDER)),
        *(("tokenizer_config.json", config(tokenizer_class=kind)) for kind in (3, ["a"], "LlamaConfig")),
        *(("tokenizer_config.json", config(eos_token=kind)) for kind in (3, ["a"], {"a": 1})),
        *(("tokenizer_config.json", config(added_tokens_decoder=kind)) for kind in ([1], {"x": "y"})),
        ("tokenizer_config.json", config(model_max_length="x")),
        ("tokenizer_config.json", config(chat_template=[{"a": 1}])),
        *((name, text) for name in ("special_tokens_map.json", "added_tokens.json") for text in ("{", "[1]", FOLDER)),
        *(("chat_template.jinja", content) for content in (b"\xff", FOLDER)),
        ("tokenizer.model", FOLDER),
    ],
)
def test_a_damaged_tokenizer_is_said_in_one_line(tmp_path, name, content):
    with pytest.raises(InputError, match="no usable tokenizer|is not a file") as raised:
        load_tokenizer(folder_with(tmp_path, name, content))
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_processor_on_which_the_library_panics_is_said_in_one_line(tmp_path):
    """The exception of a panic is not an `Exception`."""
    pieces = [{"SpecialToken": {"id": "<none>", "type_id": 0}}]
    processor = {"type": "TemplateProcessing", "single": pieces, "pair": [], "special_tokens": {}}
    content = demo_file("tokenizer.json", post_processor=processor)
    with pytest.raises(InputError, match="no usable tokenizer"):
        load_tokenizer(folder_with(tmp_path, "tokenizer.json", content))


def test_a_class_that_does_not_exist_leaves_the_tokenizer_as_it_is(tmp_path):
    named = load_tokenizer(folder_with(tmp_path, "tokenizer_config.json", config(tokenizer_class="NoSuchTokenizer")))
    text = "the same tokens"
    assert named(text, verbose=False)["input_ids"] == load_tokenizer(MODEL_DIRECTORY)(text, verbose=False)["input_ids"]


def test_ctrl_c_is_no_damage():
    for kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind), tokenizer_errors("tokenizer", "repair it"):
            raise kind


def test_ids_beyond_the_vocabulary_are_another_models():
    check_vocabulary(9, 10)
    with pytest.raises(InputError, match="token id 10, but config.json has vocab_size 10"):
        check_vocabulary(10, 10)
