"""AdamW and its learning rate."""

from dataclasses import dataclass
from typing import Any

import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from lesa_jax.checkpoint.names import Tree
from lesa_jax.training.segments import SEGMENTS
from lesa_jax.training.settings import AdamW

WARMUP = 0.03  # the share of all steps that the learning rate rises in, unless it is given
WSD_DECAY = 0.2  # the share of a warm-up-stable-decay run that decays (arXiv 2405.18392)


@dataclass(frozen=True)
class Optimizer:
    """AdamW over `steps` steps."""

    settings: AdamW
    steps: int

    @property
    def warmup(self) -> int:
        """Steps in which the learning rate rises."""
        warmup = self.settings.warmup
        return round(WARMUP * self.steps) if warmup is None else warmup


def learning_rate(optimizer: Optimizer) -> optax.Schedule:
    """Step number to learning rate: linear warm-up from 0, then cosine or linear to 0, or constant and linear to 0."""
    peak, warmup = optimizer.settings.learning_rate, optimizer.warmup
    rest = max(1, optimizer.steps - warmup)
    match optimizer.settings.schedule:
        case "cosine":
            after = optax.cosine_decay_schedule(peak, rest)
        case "linear":
            after = optax.linear_schedule(peak, 0.0, rest)
        case "wsd":
            decay = max(1, round(rest * WSD_DECAY))
            after = optax.linear_schedule(peak, 0.0, decay, transition_begin=rest - decay)
    # The first step has a rate above 0, the last one too.
    return optax.join_schedules([optax.linear_schedule(peak / (warmup + 1), peak, max(1, warmup)), after], [warmup])


def make_transformation(optimizer: Optimizer) -> optax.GradientTransformation:
    """Clip by the trained leaves' global norm, AdamW, no decay for norms and biases."""
    settings = optimizer.settings
    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.scale_by_adam(*settings.betas, eps=1e-8),
        optax.add_decayed_weights(settings.weight_decay, mask=decayed),
        optax.scale_by_learning_rate(learning_rate(optimizer)),
    )


def decayed(params: Tree) -> Tree:
    """Which leaves decay: matrices and embeddings; norms and biases are vectors. A stack of layers has an axis more."""
    flat: dict[tuple[str, ...], Any] = dict(flatten_dict(params))
    return unflatten_dict({path: leaf.ndim > (2 if path[0] == SEGMENTS else 1) for path, leaf in flat.items()})
