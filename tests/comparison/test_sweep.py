"""Learning rates found by real short runs of a small model, and methods trained as their papers train them."""

import json
import math
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from filelock import FileLock

from lesa_jax.base import locks
from lesa_jax.comparison import sweep
from lesa_jax.comparison.folder import start
from lesa_jax.comparison.job import CompareJob, make_compare_job
from lesa_jax.comparison.rates import keep_short_runs, rate_of, rates_lock, short_runs
from lesa_jax.comparison.result import Outcome, ShortRun
from lesa_jax.comparison.run import compare
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.sweep import short_settings
from lesa_jax.comparison.variants import Variant, base_by
from lesa_jax.evaluation.run import evaluate
from lesa_jax.evaluation.settings import EvaluateSettings
from lesa_jax.training import loop
from tests.support.settings import nest
from tests.support.training import rows

BASE = base_by("adamw")


def settings(place: Path, output: str, **options) -> CompareSettings:
    """Twelve steps; a short run has ten."""
    given = {
        "model": str(place / "base"), "text": place / "eval.txt", "output": place / output, "sequence_length": 32,
        "batch_size": 8, "methods": "llama_pro", "train_data": str(place / "data.jsonl"), "train_tokens": "3072",
        "eval_every": "3072", "learning_rate": "1e-4,1e-2",
    }  # fmt: skip
    return nest(CompareSettings, **given | options)


def table(job: CompareSettings) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads((job.output / "table.json").read_text())}


def base_alone(place: Path, output: str, **options) -> tuple[CompareJob, dict[Variant, Outcome]]:
    """A comparison of which only base's rate is looked for, without growing or measuring anything."""
    job = make_compare_job(settings(place, output, **options))
    job.settings.output.mkdir()
    begun = start(job.settings, job.basis.text, job.basis.digests())
    return replace(job, settings=begun, variants=(BASE,)), {BASE: Outcome("base", "-", 4, (), 1000, 0, (40.0,))}


@pytest.fixture(scope="module")
def swept(place: Path) -> CompareSettings:
    (place / "known.txt").write_text("What the model knew before it learned of other things. " * 40)
    known = {"retain_text": place / "known.txt"}
    job = settings(place, "swept", methods="llama_pro,msg,solar", train="published", controls=False, **known)
    compare(job)
    return job


@pytest.mark.slow
def test_every_row_is_trained_at_the_best_of_its_rates(swept):
    for name, row in table(swept).items():
        tried = json.loads((swept.output / "rows" / f"{name}.rates.json").read_text())["runs"]
        assert [run["learning_rate"] for run in tried] == [1e-4, 1e-2]
        assert row["learning_rate"] == min(tried, key=lambda run: run["loss"])["learning_rate"]
        assert max(step["learning_rate"] or 0 for step in rows(swept.output / "runs" / f"{name}-0")) == pytest.approx(
            row["learning_rate"]
        )
        assert row["sweep_tokens"] == 2 * 10 * 8 * 32
        assert row["sweep_flops"] == row["sweep_tokens"] * row["step_flops"]
    report = (swept.output / "report.html").read_text()
    assert "Learning rates" in report
    assert "a small leak" in (swept.output / "table.md").read_text()


@pytest.mark.slow
def test_what_is_forgotten_is_measured_in_every_run(swept):
    start = None
    for name, row in table(swept).items():
        steps = [step for step in rows(swept.output / "runs" / f"{name}-0") if step["retain_loss"] is not None]
        start = steps[0]["retain_loss"] if start is None else start  # base's
        assert row["retained"] == pytest.approx(math.exp(steps[-1]["retain_loss"]))
        assert row["retained_over_base"] == pytest.approx(math.exp(steps[-1]["retain_loss"] - start))
        tried = json.loads((swept.output / "rows" / f"{name}.rates.json").read_text())["runs"]
        ends = [rows(swept.output / "runs" / f"{name}-rate-{run['learning_rate']:g}")[-1] for run in tried]
        assert [run["retained"] for run in tried] == [step["retain_loss"] for step in ends]
    alone = EvaluateSettings(str(place_of(swept) / "base"), text=swept.output / "retain.txt", sequence_length=32)
    assert start == pytest.approx(evaluate(alone)["nll"], rel=1e-5)
    assert (swept.output / "forgetting.png").stat().st_size > 0
    assert "on the frontier" in (swept.output / "table.md").read_text()


def place_of(swept: CompareSettings) -> Path:
    return swept.output.parent


@pytest.mark.slow
def test_rows_train_what_their_papers_train(swept):
    found = table(swept)
    assert {name: row["trained"] for name, row in found.items()} == {
        "base": "everything",
        "llama_pro": "new layers",
        "msg": "everything; faded in over the first 20 %",
        "solar": "everything",
    }
    assert found["llama_pro"]["backward_depth"] < found["solar"]["backward_depth"] == 6


@pytest.mark.slow
def test_a_masked_row_starts_as_base_does(swept):
    found = table(swept)
    assert found["msg"]["initial_perplexity"] == found["base"]["initial_perplexity"]
    assert found["msg"]["tokens_to_base"] == 0
    first = rows(swept.output / "runs" / "msg-0")[0]["eval_loss"]
    assert math.exp(first) == pytest.approx(found["base"]["initial_perplexity"], rel=1e-5)


@pytest.mark.slow
def test_a_finished_sweep_is_not_made_again(swept, monkeypatch):
    before = table(swept)
    monkeypatch.setattr(sweep, "curve", None)
    compare(swept)
    assert table(swept) == before


@pytest.mark.slow
def test_rows_of_two_optimizers_are_trained_by_each(place):
    job = settings(place, "optimizers", optimizer="adamw,muon", lora=True, learning_rate="1e-2", controls=False)
    compare(job)
    found = table(job)
    assert [*found] == [f"{name} by {rule}" for name in ("base", "lora", "llama_pro") for rule in ("adamw", "muon")]
    ends = [row["perplexity"] for row in found.values()]
    assert len({*ends[:2], *ends[3:]}) == 5  # adapters are AdamW's in any case
    lora = found["lora by adamw"]
    assert lora["trained"] == "adapters of rank 16"
    assert (lora["layers"], lora["new_layers"], lora["tokens_to_base"]) == (4, [], 0)
    assert lora["initial_perplexity"] == found["base by adamw"]["initial_perplexity"]
    assert found["llama_pro by adamw"]["over_best"] is not None
    run = json.loads((job.output / "runs" / "llama_pro-by-muon-0" / "run.json").read_text())
    assert run["settings"]["optimizer"] == "muon"
    compare(replace(job, training=replace(job.training, optimizer="adamw")))  # the same folder with fewer rows
    assert table(job)["base"]["perplexity"] == ends[0]


@pytest.mark.slow
def test_a_rate_that_diverges_is_no_end_of_the_sweep(place, capsys):
    job, outcomes = base_alone(place, "diverging", learning_rate="1e-3,1e30")
    assert sweep.sweep(job, BASE, outcomes)
    lower, higher = short_runs(job.settings, BASE)
    assert lower.loss is not None
    assert higher.loss is None
    assert rate_of(job.settings, BASE) == 1e-3
    assert "learning rate of base: 0.001 (perplexities: 0.001 " in capsys.readouterr().err


@pytest.mark.slow
def test_where_no_rate_can_be_trained_the_row_says_so(place):
    job, outcomes = base_alone(place, "hopeless", learning_rate="1e30,2e30")
    for _ in range(2):  # the second time from what is kept
        assert sweep.sweep(job, BASE, outcomes)
        assert outcomes[BASE].error == "every learning rate that was tried diverged"
        outcomes[BASE] = replace(outcomes[BASE], error=None)


def test_another_error_than_a_diverging_rate_is_told_and_not_kept(place):
    (place / "soon.jsonl").write_text((place / "data.jsonl").read_text())
    job, outcomes = base_alone(place, "no-data", train_data=str(place / "soon.jsonl"))
    (place / "soon.jsonl").unlink()
    assert sweep.sweep(job, BASE, outcomes)
    assert "soon.jsonl" in str(outcomes[BASE].error)
    assert short_runs(job.settings, BASE) == ()


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_with_the_rate_it_was_at(place, monkeypatch, capsys):
    job, outcomes = base_alone(place, "stopped-sweep", train_tokens="1536")

    @contextmanager
    def stop_signal():
        asked = count()
        yield lambda: (job.settings.output / "runs" / "base-rate-0.01").exists() and next(asked) == 3

    monkeypatch.setattr(loop, "stop_signal", stop_signal)
    assert not sweep.sweep(job, BASE, outcomes)
    assert "stopped while looking for the learning rate of base" in capsys.readouterr().err
    assert [run.learning_rate for run in short_runs(job.settings, BASE)] == [1e-4]
    monkeypatch.undo()
    assert sweep.sweep(job, BASE, outcomes)
    assert [run.learning_rate for run in short_runs(job.settings, BASE)] == [1e-4, 1e-2]
    assert len(rows(job.settings.output / "runs" / "base-rate-0.01")) == 1 + 6


def test_what_another_process_tries_is_left_to_it(place, monkeypatch, capsys):
    """The other process finds the rate while this one waits for it."""
    job, outcomes = base_alone(place, "shared-sweep")
    found = [ShortRun(rate, loss, 100, 1.0, 5e6) for rate, loss in ((1e-4, 3.0), (1e-2, 2.0))]
    other_process = FileLock(rates_lock(job.settings, BASE))
    other_process.acquire()

    def says(text, **where):
        print(text, **where)
        keep_short_runs(job.settings, BASE, found)
        other_process.release()

    monkeypatch.setattr(locks, "print", says, raising=False)
    monkeypatch.setattr(sweep, "curve", None)
    assert sweep.sweep_missing(job, outcomes)
    assert "waiting for another process, which looks for the learning rate of base" in capsys.readouterr().err
    assert rate_of(job.settings, BASE) == 1e-2


def test_a_short_run_is_the_same_run_but_shorter(place):
    job = settings(place, "short", train_tokens="100K")
    whole = short_settings(job, Variant("msg", mask=0.2, trains="all"), 1e-3)
    assert (whole.steps, whole.tokens, whole.mask_steps, whole.train) == (78, None, 16, "all")
    assert (whole.optimizer.learning_rate, whole.held_out.eval_every) == (1e-3, 78)
    assert whole.output.name == "msg-rate-0.001"
