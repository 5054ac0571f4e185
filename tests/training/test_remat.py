"""What the backward pass computes again, it computes again: also of layers that no loop runs."""

import jax
import pytest

from lesa_jax.training.job import make_train_job
from lesa_jax.training.lowering import trace_step
from lesa_jax.training.settings import BatchSettings, DeviceSettings, TrainSettings
from tests.support.tiny import tiny


@pytest.mark.parametrize("remat", ["none", "block", "full"])
@pytest.mark.parametrize(("family", "alone"), [("openelm", 2), ("llama", 0)])
def test_layers_that_no_loop_runs_stand_behind_a_barrier(family, alone, remat):
    """Without one XLA takes what the forward pass has computed, and memory is that of a model without remat."""
    settings = TrainSettings(
        model=str(tiny(family)),
        data="none",
        train="all",
        steps=10,
        batch=BatchSettings(batch_size=2, sequence_length=16),
        devices=DeviceSettings(remat=remat),
    )
    job = make_train_job(settings, target=jax.devices())
    assert sum(segment.repeats == 1 for segment in job.segments) == alone
    program = trace_step(job).lower().as_text()
    assert program.count("optimization_barrier") == (0 if remat == "none" else alone)
