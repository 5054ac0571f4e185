"""A comparison that scores its rows on tasks, before training and after."""

import json
import sys
from dataclasses import replace
from typing import Any

import pytest
import transformers as hf

from lesa_jax.base.errors import InputError
from lesa_jax.comparison import asking, measure
from lesa_jax.comparison.job import make_compare_job
from lesa_jax.comparison.result import Comparison
from lesa_jax.comparison.run import compare
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.harness import harness
from lesa_jax.tasks.headline import headline
from lesa_jax.training.run import train
from tests.support.comparing import by_name, settings, training
from tests.support.settings import change

TASKS = "lesa_choice,lesa_text"
ASKED = {"methods": "duplicate", "controls": False, "tasks": TASKS}
ONE_STEP = {"train_tokens": "256", "batch_size": 8}


def job_of(place, output, **more):
    """On a text of a dozen questions."""
    (place / "short.txt").write_text("def g(x):\n    return x\n" * 23)
    return change(settings(place, output, **{**ASKED, **more}), text=place / "short.txt")


def trained_job(place, output, **more):
    return job_of(place, output, **{**training(place), **ONE_STEP, **more})


@pytest.fixture(scope="module")
def untrained(place) -> Comparison:
    return compare(job_of(place, "untrained", keep_models=True))


@pytest.fixture(scope="module")
def trained(place) -> Comparison:
    return compare(trained_job(place, "asked"))


def scored_alone(place, folder):
    return (headline(harness(model=str(folder), tasks=TASKS, text=place / "short.txt")),)


def test_scores_are_those_of_the_harness(place, untrained):
    base, grown = untrained.outcomes
    assert base.scores == scored_alone(place, place / "base")
    assert grown.scores == scored_alone(place, place / "untrained" / "models" / "duplicate-0")
    assert base.scores[0][0].questions == 12
    assert base.scores != grown.scores


def test_the_report_has_them(place, untrained):
    for row in json.loads((place / "untrained" / "table.json").read_text()):
        score = by_name(untrained)[row["method"]].scores[0][0]
        found = row["tasks"]["lesa_choice"]
        assert (found["before"], found["before_error"], found["after"]) == (score.value, score.error, None)
        assert f"{score.value:.4f}" in (place / "untrained" / "table.md").read_text()
    assert "lesa_choice acc" in (place / "untrained" / "report.html").read_text()


def test_going_on_asks_nothing_again(place, untrained, monkeypatch):
    for name in ("evaluate", "task_scores"):
        monkeypatch.setattr(measure, name, None)
    assert compare(job_of(place, "untrained", keep_models=True)).outcomes == untrained.outcomes


def test_other_tasks_or_another_harness_are_refused(place, untrained, monkeypatch):
    with pytest.raises(InputError, match=f"--tasks {TASKS}, now it is lesa_text"):
        compare(job_of(place, "untrained", tasks="lesa_text"))
    with pytest.raises(InputError, match=f"--tasks {TASKS}, now it is None"):
        compare(job_of(place, "untrained", tasks=None))
    monkeypatch.setattr("lesa_jax.comparison.basis.harness_version", lambda: "0.0.1")
    with pytest.raises(InputError, match=r"by other versions \(lm_eval .*, now 0.0.1\)"):
        compare(job_of(place, "untrained"))


@pytest.mark.slow
def test_scores_after_training_are_those_of_a_run_of_its_own(place, trained):
    """Each model grown and trained by its own command."""
    expand(ExpandSettings(str(place / "base"), place / "alone", method="duplicate"))
    job = make_compare_job(trained_job(place, "asked"))
    for variant, folder in zip(job.variants, (place / "base", place / "alone"), strict=True):
        found = by_name(trained)[variant.name]
        assert found.scores == scored_alone(place, folder)
        run = measure.run_settings(job.settings, variant, 0, 1e-2)
        run = replace(run, model=str(folder), output=place / f"run-{variant.name}")
        assert found.trained_scores == scored_alone(place, train(run).final)
        assert found.trained_scores != found.scores


@pytest.mark.slow
def test_trained_weights_go_and_going_on_asks_nothing_again(place, trained, monkeypatch):
    for name in ("base", "duplicate"):
        left = {path.name for path in (place / "asked" / "runs" / f"{name}-0").iterdir()}
        assert left >= {"metrics.jsonl", "run.json"}
        assert not left & {"final", "checkpoints"}
    for row in json.loads((place / "asked" / "table.json").read_text()):
        score = by_name(trained)[row["method"]].trained_scores[0][0]
        assert row["tasks"]["lesa_choice"]["after"] == score.value
    for name in ("train", "evaluate", "task_scores"):
        monkeypatch.setattr(measure, name, None)
    assert compare(trained_job(place, "asked")).outcomes == trained.outcomes


@pytest.mark.slow
def test_a_break_while_a_trained_model_is_asked_trains_nothing_twice(place, trained, monkeypatch):
    """The exported model waits for it."""
    job, original, asked = trained_job(place, "broken-off"), measure.task_scores, []

    def stopped(settings, model):
        asked.append(model)
        if model.name == "final":
            raise KeyboardInterrupt
        return original(settings, model)

    monkeypatch.setattr(measure, "task_scores", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare(job)
    final = job.output / "runs" / "base-0" / "final"
    assert asked[-1] == final
    written = (final / "model.safetensors").stat().st_mtime_ns
    seen = []

    def score(settings, model):
        seen.append(model)
        if model == final:
            assert (model / "model.safetensors").stat().st_mtime_ns == written
        return original(settings, model)

    monkeypatch.setattr(measure, "task_scores", score)
    found = compare(job)
    assert [model.parent.name for model in seen] == ["base-0", "duplicate-0"]
    for name in ("base", "duplicate"):
        assert by_name(found)[name].scores == by_name(trained)[name].scores
        assert by_name(found)[name].trained_scores == by_name(trained)[name].trained_scores


@pytest.mark.slow
def test_seeds_and_short_runs(place):
    """Short runs, which look for a rate, are not exported; each seed has a score, adapters too, once added up."""
    job = trained_job(place, "swept", seeds=2, learning_rate="1e-3,1e-2", methods="random", lora=True)
    found = by_name(compare(job))
    assert [len(found["random"].scores), len(found["lora"].scores)] == [2, 1]
    for name in ("random", "lora"):
        assert len({text.value for _, text in found[name].trained_scores}) == 2
    assert found["lora"].scores == found["base"].scores
    assert not [*(job.output / "runs").glob("*/final")]


BAD = {
    "none": ({"tasks": ","}, "--tasks: names none"),
    "short text": ({"tasks": "lesa_choice", "text": "one two three. " * 5}, "--text: has no passage of 60 words"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_asked_is_refused_in_one_line_before_anything_is_grown(place, tmp_path, case):
    options, message = BAD[case]
    if "text" in options:
        (tmp_path / "short.txt").write_text(options["text"])
        options = options | {"text": tmp_path / "short.txt"}
    with pytest.raises(InputError) as caught:
        compare(change(settings(place, "bad", **ASKED), **options, output=tmp_path / "out"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_unknown_task_is_refused(place, tmp_path):
    """Slow: all tasks are looked through."""
    with pytest.raises(InputError, match="--tasks: no task lesa_chioce: did you mean lesa_choice"):
        compare(change(settings(place, "bad", **ASKED), tasks="lesa_chioce", output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_missing_harness_is_refused(place, tmp_path, monkeypatch):
    asking.tasks_of.cache_clear()
    monkeypatch.setitem(sys.modules, "lm_eval.evaluator", None)
    with pytest.raises(InputError, match="lm-evaluation-harness is not installed .*pip install"):
        compare(change(settings(place, "bad", **ASKED), output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_encoder_is_refused(place, tmp_path):
    sizes: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_heads": 4, "num_layers": 2, "vocab_size": 4096}
    sizes["decoder_start_token_id"] = 0
    config = hf.T5Config(**sizes)
    hf.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "t5" / name).write_bytes((place / "base" / name).read_bytes())
    (tmp_path / "pairs.jsonl").write_text('{"input": "a b", "target": "c d e f"}\n' * 3)
    bad = change(
        settings(place, "bad", **ASKED), model=str(tmp_path / "t5"), text=tmp_path / "pairs.jsonl", stack="decoder",
        output=tmp_path / "out",
    )  # fmt: skip
    with pytest.raises(InputError, match="a t5 model has an encoder, which tasks cannot be asked by here"):
        compare(bad)
    assert not (tmp_path / "out").exists()
