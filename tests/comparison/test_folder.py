"""A comparison's folder: what compare.json holds, and which changes it refuses to go on with, whatever the paths."""

from pathlib import Path

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_json, write_json
from lesa_jax.comparison.folder import check_output, start
from lesa_jax.comparison.settings import ComparedTraining, CompareSettings
from tests.support.settings import change

SETTINGS = CompareSettings(
    model="m", text=Path("t.txt"), sequence_length=32, training=ComparedTraining(train_data="d", train_tokens="2K")
)
DIGESTS = {
    "text": "a1", "model": {"model.safetensors": "b1", "config.json": "c1"}, "data": ["d1", "d2"],
    "versions": {"lesa_jax": "1", "jax": "2", "device": "cpu"},
}  # fmt: skip
KEPT = {
    "format": 2,
    "layers": None, "stack": None, "train_tokens": "2K", "train": "new", "eval_every": "100k", "learning_rate": 0.0002,
    "batch_size": 16, "sequence_length": 32, "ppl_protocol": "corpus", "tasks": None, "made_of": DIGESTS,
}  # fmt: skip


@pytest.fixture
def begun(tmp_path: Path) -> CompareSettings:
    settings = change(SETTINGS, output=tmp_path / "out", methods="lesa", seeds=9, placements="top", keep_models=True)
    settings.output.mkdir()
    start(settings, b"text", DIGESTS)
    return settings


def test_it_keeps_what_decides_by_content(begun):
    assert read_json(begun.output / "compare.json", "") == KEPT
    assert (begun.output / "text.txt").read_bytes() == b"text"


def test_other_methods_and_other_places_of_the_same_files_go_on(begun):
    moved = change(begun, methods="solar", model="elsewhere", text=Path("u.txt"), train_data="e", seeds=1)
    assert start(moved, b"text", DIGESTS) == change(moved, text=begun.output / "text.txt")


def test_other_settings_are_refused(begun):
    with pytest.raises(InputError, match="its comparison has --train-tokens 2K, now it is 3K"):
        start(change(begun, train_tokens="3K"), b"text", DIGESTS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text": "a2"}, "of another held-out text than there is now"),
        ({"retained": "r"}, "of another retained text than there is now"),
        ({"replayed": ["o"]}, "of another replayed data than there is now"),
        ({"data": ["d2", "d1"]}, "of another training data than there is now"),
        ({"data": ["d1"]}, "of another training data than there is now"),
        ({"model": {**DIGESTS["model"], "config.json": "c2"}}, r"of another model \(config.json\)"),
        ({"model": {**DIGESTS["model"], "tokenizer.json": "e1"}}, r"of another model \(tokenizer.json\)"),
        ({"model": {"config.json": "c1"}}, r"of another model \(model.safetensors\)"),
        ({"versions": {**DIGESTS["versions"], "jax": "3"}}, r"made by other versions \(jax 2, now 3\)"),
        ({"versions": {**DIGESTS["versions"], "device": "gpu"}}, r"made by other versions \(device cpu, now gpu\)"),
    ],
)
def test_other_contents_are_refused(begun, changed, message):
    with pytest.raises(InputError, match=f"{message}.*remove that folder, or choose another --output") as caught:
        start(begun, b"text", DIGESTS | changed)
    assert "\n" not in str(caught.value)


def test_a_comparison_that_does_not_say_what_it_was_made_of_is_refused(begun):
    (begun.output / "compare.json").write_text('{"format": 2, "model": "m", "layers": null}')
    with pytest.raises(InputError, match="does not say what it was made of"):
        start(begun, b"text", DIGESTS)


@pytest.mark.parametrize(("form", "was"), [({}, 1), ({"format": 1}, 1), ({"format": 3}, 3)])
def test_a_comparison_of_another_format_is_refused_in_one_line(begun, form, was):
    write_json(begun.output / "compare.json", form | {"layers": None, "made_of": {}})
    with pytest.raises(
        InputError, match=rf"by another version .*\(format {was}, now 2\); remove that folder"
    ) as caught:
        start(begun, b"text", DIGESTS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"layers": NaN'])
def test_a_damaged_compare_json_is_named(begun, content):
    (begun.output / "compare.json").write_text(content)
    with pytest.raises(InputError, match=r"compare.json: .*remove .*out, or choose another --output") as caught:
        check_output(begun.output, Path("m"))
    assert "\n" not in str(caught.value)
    assert "download" not in str(caught.value)


def test_a_text_that_was_changed_in_the_folder_is_put_back(begun):
    (begun.output / "text.txt").write_text("another")
    start(begun, b"text", DIGESTS)
    assert (begun.output / "text.txt").read_bytes() == b"text"
