"""The head of a model card: what of the original's is still true, and what the hub finds the model by."""

import pytest
import yaml

from lesa_jax.checkpoint.cards import TAGS, front_matter, kept


def head(*arguments, **options):
    text = front_matter(*arguments, **options)
    assert text.startswith("---\n")
    assert text.endswith("\n---")
    return yaml.safe_load(text.strip("-"))


def test_licence_and_language_go_along_and_the_rest_does_not(tmp_path):
    (tmp_path / "README.md").write_text(
        "---\nlicense: other\nlicense_name: llama3\nlicense_link: LICENSE\nlanguage:\n- en\n- de\n"
        "tags: [facebook]\nmodel-index: {a: 1}\n---\n# Llama --- the third\n"
    )
    assert head(tmp_path, "meta-llama/Meta-Llama-3-8B") == {
        "base_model": "meta-llama/Meta-Llama-3-8B",
        "pipeline_tag": "text-generation",
        "license": "other",
        "license_name": "llama3",
        "license_link": "LICENSE",
        "language": ["en", "de"],
        "library_name": "transformers",
        "tags": list(TAGS),
    }


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "# No head\n",
        "# A head\n---\nlicense: mit\n---\n",
        "---\na: [\n---\n",
        "---\n- a\n---\n",
        "---",
        "\xff",
    ],
)
def test_a_card_without_a_head_says_nothing(tmp_path, text):
    if text is not None:
        (tmp_path / "README.md").write_bytes(text.encode("latin-1"))
    assert kept(tmp_path) == {}
    assert head(tmp_path, "./folder") == {
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "tags": list(TAGS),
    }


def test_values_that_are_no_words_do_not_go_along(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: {a: 1}\nlanguage: [1]\npipeline_tag: fill-mask\n---\n")
    assert kept(tmp_path) == {"pipeline_tag": "fill-mask"}


def test_an_encoder_decoder_and_no_original():
    assert head(None, encoder_decoder=True)["pipeline_tag"] == "text2text-generation"
