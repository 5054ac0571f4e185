"""What the tests of whole comparisons share: quick ones on the models of the fixture `place`."""

from pathlib import Path
from typing import Any

from lesa_jax.comparison.result import Comparison, Outcome
from lesa_jax.comparison.settings import CompareSettings
from tests.support.settings import nest


def settings(place: Path, output: str, **options) -> CompareSettings:
    return nest(
        CompareSettings,
        model=str(place / "base"),
        text=place / "eval.txt",
        output=place / output,
        sequence_length=32,
        **{"methods": "llama_pro,duplicate,random"} | options,
    )


def training(place: Path) -> dict[str, Any]:
    return {"train_data": str(place / "data.jsonl"), "train_tokens": "2K", "eval_every": "1K", "learning_rate": 1e-2}


def by_name(comparison: Comparison) -> dict[str, Outcome]:
    return {outcome.method: outcome for outcome in comparison.outcomes}
