"""Whether what an expansion computes fits into memory, known before it begins."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from lesa_jax.base.errors import InputError
from lesa_jax.base.units import format_bytes
from lesa_jax.families.kinds import WeightKind
from lesa_jax.growth.weights import computation_memory
from lesa_jax.planning.methods import Lesa, PredictorSettings, Start

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container, in bytes or "max"


def predictor_memory(kind: WeightKind, settings: PredictorSettings) -> int:
    """Bytes of a predictor in training: weights, gradient and two moments, and the order of the samples.

    Args:
      kind: whose rows it predicts.
      settings: its width, its batches and epochs.
    """
    layers, out, fan_in = kind.shape
    weights = settings.hidden_size * (3 * fan_in + settings.hidden_size + 2) + fan_in
    activations = settings.batch_size * 2 * (3 * fan_in + 2 * settings.hidden_size)
    samples = settings.epochs * max(out * (layers - 2), settings.batch_size)
    return 4 * (4 * weights + activations + 3 * samples)


def machine_memory() -> int:
    """Bytes that this process may have: the machine's, or what its container is given."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(physical, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):
        return physical


def check_memory(start: Start, settings: PredictorSettings, kinds: Mapping[WeightKind, Sequence[object]]) -> None:
    """Refuses what cannot be computed here.

    Args:
      start: what makes new layers.
      settings: of the predictor, if it is LESA.
      kinds: that are computed, with a new tensor for each new layer.

    Raises:
      InputError: the memory that the weights, or with them LESA's predictor, would need.
    """
    weights, memory = computation_memory(kinds), machine_memory()
    if weights > memory:
        raise InputError(
            f"the new layers' weights take about {format_bytes(weights)} of memory to compute, this machine has "
            f"{format_bytes(memory)}; take a method that copies, such as --method llama_pro, or a larger machine"
        )
    if not isinstance(start, Lesa):
        return
    predictor = max((predictor_memory(kind, settings) for kind in kinds), default=0)
    if weights + predictor > memory:
        raise InputError(
            f"--hidden-size {settings.hidden_size}, --batch-size {settings.batch_size}, --epochs {settings.epochs}: "
            f"the predictor takes about {format_bytes(predictor)} of memory, this machine has {format_bytes(memory)}; "
            "choose smaller ones"
        )
