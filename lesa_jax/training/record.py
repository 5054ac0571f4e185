"""What growth.json says of a model that was trained after it was grown."""

from dataclasses import replace
from typing import Any

from lesa_jax.planning.record import Growth
from lesa_jax.training.job import TrainJob

Losses = tuple[float | None, float | None]  # held-out, before and after


def trained_growth(growth: Growth, job: TrainJob, losses: Losses) -> dict[str, Any]:
    """growth.json of the exported model: what was measured when it was grown is named so, for it is no longer true."""
    measured = dict(growth.measurements)
    sizes, trained = measured.pop("parameters", {}), measured.pop("trained", [])
    now = {
        "stage": job.settings.stage,
        "train": job.settings.train,
        "steps": job.optimizer.steps,
        "tokens": job.optimizer.steps * job.step_tokens,
        "loss": {"before": losses[0], "after": losses[1]},
    }
    measurements = {
        "parameters": sizes,
        "at_growth": measured.get("at_growth", measured),
        "trained": [*trained, now],
    }
    return replace(growth, measurements=measurements).to_json()
