"""What growth.json says of a model that was trained after it was grown."""

from dataclasses import replace
from typing import Any

from lesa_jax.planning.record import Growth, not_as_grown
from lesa_jax.training.job import TrainJob
from lesa_jax.training.result import Losses


def trained_growth(growth: Growth, job: TrainJob, losses: Losses) -> dict[str, Any]:
    """growth.json of the exported model: what was measured when it was grown is named so, for it is no longer true."""
    measured = not_as_grown(growth.measurements)
    now = {
        "stage": job.settings.stage,
        "train": job.settings.train,
        "steps": job.optimizer.steps,
        "tokens": job.optimizer.steps * job.step_tokens,
        "loss": before_and_after(losses, "eval_loss"),
        **({"retained": before_and_after(losses, "retain_loss")} if "retain_loss" in losses else {}),
    }
    measured["trained"] = [*measured.get("trained", []), now]
    return replace(growth, measurements=measured).to_json()


def before_and_after(losses: Losses, name: str) -> dict[str, float | None]:
    before, after = losses.get(name, (None, None))
    return {"before": before, "after": after}
