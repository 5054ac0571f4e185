"""The experiment on layers of different sizes: the defect of the published runs, what is measured, and what is told."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.models.decoder import logits
from lesa_jax.models.load import load_model
from tests.support.tiny import tiny

# experiments/ is no package: its scripts are run, and import one another by name.
sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "layerwise"))

import layerwise
import layerwise_data
import layerwise_grow
import layerwise_measure
import layerwise_report
import layerwise_runs
from layerwise_runs import CLEAN, DEFECT, PLAIN, SCALED, Row, Run

TOKENS = np.array([5, 0, 511, 50279, 17], np.int32)
RIGHT = dict.fromkeys(("accuracy", "beginning", "end", "frequent", "rare"), 0.25)


def row(profile: str, loss: float, *, norm: str = PLAIN, data: str = CLEAN, rate: float = 4e-3, seed: int = 0) -> Row:
    return Row(profile, norm, data, 20, rate, seed, parameters=1000, loss=loss / 2, text_loss=loss, **RIGHT)


def test_tokens_saved_as_int32_and_read_as_uint16_are_twice_as_many_and_every_second_is_zero(tmp_path):
    saved = tmp_path / "tokens.bin"
    TOKENS.tofile(saved)
    read = np.fromfile(saved, np.uint16)  # what baroian/OLMo-custom does
    np.testing.assert_array_equal(layerwise_data.misread(TOKENS), read)
    np.testing.assert_array_equal(read[::2], TOKENS)
    assert len(read) == 10
    assert not read[1::2].any()


def test_the_defect_makes_a_perplexity_its_root():
    """A model that knows the zeros for what they are, and of the text as much as before, reports the square root."""
    nll = np.random.default_rng(0).exponential(3.0, 1000)
    reported = np.stack([nll, np.zeros_like(nll)]).mean()
    assert np.exp(reported) == pytest.approx(np.exp(nll.mean()) ** 0.5)


def test_numbers_are_read_as_the_tokens_that_they_are(tmp_path):
    layerwise_data.write_tokens(tmp_path / "tokens.txt", TOKENS % 512)
    tokenizer = layerwise_data.word_tokenizer(512)
    np.testing.assert_array_equal(layerwise_data.tokens_of(tmp_path / "tokens.txt", tokenizer, 99), TOKENS % 512)
    assert len(layerwise_data.tokens_of(tmp_path / "tokens.txt", tokenizer, 3)) == 3


def test_windows_predict_each_token_once():
    found = layerwise_data.windows(np.arange(11), 3)
    np.testing.assert_array_equal(found, [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]])


def test_thirds_are_of_the_text_by_how_frequent_its_tokens_are_in_training():
    counts = np.array([100, 1, 50, 10])
    targets = np.array([[0, 0, 2], [2, 3, 1]])
    frequent, rare = layerwise_measure.thirds(targets, counts)
    np.testing.assert_array_equal(targets[frequent], [0, 0])
    np.testing.assert_array_equal(targets[rare], [3, 1])


@pytest.mark.parametrize("every", [1, 2])
def test_losses_and_guesses_are_those_of_the_models_logits(every):
    folder = tiny("llama")
    params, config = load_model(folder)
    windows = np.random.default_rng(0).integers(0, config.vocab_size, (40, 17)).astype(np.int32)
    counts = np.arange(config.vocab_size)
    found = layerwise_measure.measured(folder, windows, counts, every)
    logs = np.asarray(jax.nn.log_softmax(logits(params, jnp.asarray(windows[:, :-1]), config)))
    targets = windows[:, 1:]
    nll = -np.take_along_axis(logs, targets[..., None], -1)[..., 0]
    right = logs.argmax(-1) == targets
    own = slice(1, None, 2) if every == 2 else slice(None)
    assert found["loss"] == pytest.approx(nll.mean(), rel=1e-5)
    assert found["text_loss"] == pytest.approx(nll[:, own].mean(), rel=1e-5)
    assert found["accuracy"] == pytest.approx(right[:, own].mean())
    half = 8 if every == 1 else 4
    assert found["end"] == pytest.approx(right[:, own][:, half:].mean())


def test_every_rate_is_tried_by_the_first_seed_and_the_others_take_the_best():
    group = Run("crown", PLAIN, CLEAN, 20, 0.0, 0)
    first = layerwise_runs.sweep(group, (1e-3, 4e-3), 3, [])
    assert [(run.rate, run.seed) for run in first] == [(1e-3, 0), (4e-3, 0)]
    tried = [row("crown", 3.0, rate=1e-3), row("crown", 2.5), row("vanilla", 1.0, rate=1e-3)]
    assert layerwise_runs.sweep(group, (1e-3, 4e-3), 3, tried[:1]) == first
    then = layerwise_runs.sweep(group, (1e-3, 4e-3), 3, tried)
    assert [(run.rate, run.seed) for run in then[2:]] == [(4e-3, 1), (4e-3, 2)]
    assert {run.profile for run in then} == {"crown"}


def test_profiles_are_held_against_the_isotropic_one_seed_by_seed(tmp_path):
    noise = (0.0, 0.2, -0.1)
    rows = [row("isotropic", 3.0 + noise[seed], seed=seed) for seed in range(3)]
    rows += [row("vanilla", 2.9 + noise[seed] + 0.001 * seed, seed=seed) for seed in range(3)]
    rows += [row("crown", 3.0 + noise[seed] + (0.0, 0.1, -0.08)[seed], seed=seed) for seed in range(3)]
    rows += [row("vanilla", 9.0, rate=8e-3)]  # a rate that was tried and is not the best
    rows += [row("isotropic", 2.8, norm=SCALED), row("isotropic", 2.0, data=DEFECT), row("vanilla", 2.1, data=DEFECT)]
    text = layerwise_report.write_report(tmp_path / "layerwise.md", "About.", rows)
    assert (tmp_path / "layerwise.md").read_text() == text
    assert "plain norms.** Better than isotropic: vanilla; not apart from isotropic: crown." in text
    # -0.1, -0.099, -0.098: a standard error of 0.001 / sqrt(3), times Student's 4.303.
    assert "| vanilla | 1,000 | 0.004 | 2.9000, 3.1010, 2.8020 | -0.0990 +- 0.0025 |" in text
    assert "Of one seed, which cannot be told from chance: vanilla." in text
    assert "LayerNorm Scaling over plain norms at 20 tokens a parameter: isotropic -0.2000." in text
    assert "| vanilla | 1,000 | 0.004 | 2.1000 | +0.1000 | 1.0500 | 25.00% |" in text
    assert (tmp_path / "layerwise.png").stat().st_size > 0


def test_a_folder_of_another_experiment_is_refused(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Some words and some more words. " * 40)
    settings = layerwise.Settings(text, text, tmp_path / "out", vocabulary=300)
    layerwise.begin(settings)
    layerwise.begin(replace(settings, seeds=5))  # more seeds are the same experiment
    with pytest.raises(InputError, match="its experiment has --width 128, now it is 64"):
        layerwise.begin(replace(settings, width=64))


@pytest.mark.slow
def test_it_trains_measures_and_reports_and_a_second_time_does_nothing(tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"The {i}th of all the words is word {i * i % 97}, and so on.\n" for i in range(3000)))
    settings = layerwise.Settings(
        data=text,
        text=text,
        output=tmp_path / "work",
        name="test",
        layers=6,
        width=16,
        head_dim=4,
        vocabulary=300,
        parameters="26k",
        saturations=(1,),
        rates=(4e-3, 8e-3),
        profiles=("isotropic", "crown"),
        norms=(PLAIN,),
        seeds=2,
        batch_size=4,
        sequence_length=32,
        held_out="2k",
        results=tmp_path / "results",
    )
    layerwise.main(settings)
    rows = layerwise.rows(settings)
    # Two profiles, each with two rates and then another seed; and once each with the defect.
    assert len(rows) == 2 * 3 + 2
    assert {run.profile for run in rows} == {"isotropic", "crown"}
    assert all(abs(own.parameters - 26_000) <= 260 for own in rows)
    clean = [own for own in rows if own.data == CLEAN]
    assert all(own.loss == own.text_loss < np.log(300) for own in clean)
    assert all(own.loss < own.text_loss for own in rows if own.data == DEFECT)  # zeros are learned at once
    table = tmp_path / "results" / "layerwise_test.md"
    assert table.read_text().count("| crown |") == 2
    assert table.with_suffix(".csv").read_bytes() == settings.runs.read_bytes()
    monkeypatch.setattr(layerwise, "train", None)  # what is finished is not run again
    layerwise.main(settings)
    assert [asdict(own) for own in layerwise.rows(settings)] == [asdict(own) for own in rows]
    grow_settings = layerwise_grow.Settings(**vars(settings), deeper=9, share=0.5)
    monkeypatch.undo()
    layerwise_grow.main(grow_settings)
    grown = layerwise_grow.recorded(settings.output / "grown.csv", layerwise_grow.Grown)
    ways = [("isotropic", "trained on"), ("isotropic", "copies"), ("isotropic", "LESA")]
    ways += [("crown", "trained on"), ("crown", "copies"), ("crown", "copies, profile kept")]
    assert {(own.profile, own.way) for own in grown} == {*ways}
    assert len(grown) == 2 * len(ways)
    losses = {
        (own.profile, own.seed): own.text_loss
        for name in settings.profiles
        for own in layerwise_runs.best(row for row in rows if (row.data, row.profile) == (CLEAN, name))
    }
    for own in grown:
        assert own.way == "LESA" or own.before == pytest.approx(losses[own.profile, own.seed], abs=1e-5)
        assert (own.new_parameters == 0) == (own.way == "trained on")
    assert table.with_name("layerwise_grown_test.md").read_text().count("| crown |") == 3
