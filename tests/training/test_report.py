"""What is shown of a run, whatever its folder is called and its losses are."""

from dataclasses import replace

import pytest

from lesa_jax.base.files import read_json
from lesa_jax.models.config import read_config
from lesa_jax.training.job import make_train_job
from lesa_jax.training.report import perplexity, print_train_report
from lesa_jax.training.result import describe, no_attention_kernel
from tests.support.settings import train_settings
from tests.support.tiny import tiny


def test_names_are_shown_as_they_are_and_no_loss_is_too_large(place, capsys):
    job = make_train_job(train_settings(place, "[red]x :smile: [/b"))
    report = replace(describe(job), losses={"eval_loss": (1e4, 2.0)}, done=6)
    print_train_report(report)
    shown = capsys.readouterr().out
    assert shown.endswith("[red]x :smile: [/b/final\n")
    assert "10000.0000 -> 2.0000 (perplexity inf -> 7.39)" in shown


def test_a_loss_beyond_all_numbers_has_no_perplexity():
    assert perplexity(710.0) == float("inf")
    assert perplexity(1.0) == pytest.approx(2.718281828)


@pytest.mark.parametrize(
    ("platform", "family", "reason"),
    [
        ("cpu", "gemma2", None),
        ("tpu", "t5", "encoder-decoders have none yet"),
        ("gpu", "gemma2", "it has no soft cap"),
        ("tpu", "llama", "heads of 8 are no multiple of 64"),
    ],
)
def test_why_attention_has_no_kernel(platform, family, reason):
    config = read_config(read_json(tiny(family) / "config.json", "made here"))
    assert no_attention_kernel(platform, config, "bfloat16", 128) == reason
