"""What is said of a model that lost layers: of its originals, and in the growth.json of the new ones that stay."""

from dataclasses import replace
from typing import Any

from lesa_jax.planning.record import Growth, not_as_grown
from lesa_jax.ungrowth.job import UngrowJob


def growth_left(job: UngrowJob) -> dict[str, Any]:
    """growth.json of a model in which some new layers stay."""
    measured = not_as_grown(job.growth.measurements)
    measured["parameters"] = {**measured["parameters"], "after": job.parameters}
    *encoder, decoder = (list(layers) for layers in job.dropped)
    now = {"layers": decoder} | ({"encoder": encoder[0]} if encoder else {})
    measured["dropped"] = [*measured.get("dropped", []), now]
    return replace(job.growth, plan=job.left, measurements=measured).to_json()


def originals_kept(growth: Growth, same_files: bool | None) -> str:
    """Whether originals are the source's, and how that is known.

    Args:
      growth: of the grown model.
      same_files: whether the output's weight files have the SHA-256 of the source's; None where they are others.
    """
    if same_files:
        return "the source's: the weight files are its own, by their SHA-256"
    ways = [str(run.get("train")) for run in growth.measurements.get("trained", []) if isinstance(run, dict)]
    others = list(dict.fromkeys(f"--train {way}" for way in ways if way != "new"))
    if others:
        return f"as trained since the model was grown ({', '.join(others)}), so that they need not be the source's"
    if same_files is None:
        return "the grown model's, byte for byte"
    return (
        "the grown model's, byte for byte; that they are the source's is not shown: its weight files had another "
        "SHA-256, by other numbers or by how they were written"
    )
