"""A run's folder is recognised by what run.json has held since the first version."""

from pathlib import Path
from typing import Any

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import write_json
from lesa_jax.training.folder import check_run, record
from lesa_jax.training.job import make_train_job
from tests.support.settings import train_settings


def earlier_run(place: Path, identity: str) -> dict[str, Any]:
    """run.json of `train_settings`, as runs were begun with before settings were nested."""
    settings = {
        "data": str(place / "data.jsonl"), "steps": 6, "stage": "pretrain", "train": "new", "init": "checkpoint",
        "batch_size": 8, "sequence_length": 32, "learning_rate": 0.01, "schedule": "cosine", "warmup": None,
        "betas": [0.9, 0.95], "weight_decay": 0.1, "mask_steps": 0, "clip": 1.0, "dtype": "float32", "seed": 0,
    }  # fmt: skip
    return {"identity": identity, "settings": settings}


def test_a_run_begun_before_goes_on_and_with_other_settings_it_does_not(place, tmp_path):
    changes = {"mesh": "data=1", "accumulate": 2, "remat": "full", "save_every": 7, "eval_text": None, "keep": 9}
    job = make_train_job(
        train_settings(tmp_path, "run", model=str(place / "grown"), data=str(place / "data.jsonl"), **changes)
    )
    assert record(job) == earlier_run(place, job.identity)
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "run.json", earlier_run(place, job.identity))
    check_run(job)
    for name, value in {"learning_rate": 0.02, "betas": [0.9, 0.99], "warmup": 3, "dtype": "bfloat16"}.items():
        other = earlier_run(place, job.identity)
        other["settings"][name] = value
        write_json(tmp_path / "run" / "run.json", other)
        with pytest.raises(InputError, match="its run has ") as caught:
            check_run(job)
        assert f"{name}={value}, now it is" in str(caught.value)
    write_json(tmp_path / "run" / "run.json", earlier_run(place, "another"))
    with pytest.raises(InputError, match="another model, plan or --train"):
        check_run(job)


def test_a_length_in_tokens_is_kept_as_steps(place, tmp_path):
    files = {"model": str(place / "grown"), "data": str(place / "data.jsonl"), "eval_text": None}
    job = make_train_job(train_settings(tmp_path, "run", steps=None, tokens="2K", **files))
    kept = record(job)["settings"]
    assert kept["steps"] == 2000 // 256
    assert "tokens" not in kept
