"""What a trained model makes of held-out text, token by token."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from lesa_jax.families.model import ModelConfig
from lesa_jax.models.decoder import forward, head
from lesa_jax.models.load import load_model
from lesa_jax.models.losses import token_scores

BATCH = 32


def measured(
    folder: Path, windows_NxT: Int[np.ndarray, "windows tokens"], counts_V: Int[np.ndarray, " vocab"], every: int
) -> dict[str, Any]:
    """The losses and accuracies of a `Row`.

    Args:
      folder: of the checkpoint.
      windows_NxT: held-out tokens; all but the first of a window are predicted.
      counts_V: how often each token occurs in training.
      every: of the predicted tokens, how many come for each that is text, which is the last of them.
    """
    params, config = load_model(folder)
    scored = [
        _scores(params, windows_NxT[start : start + BATCH], config) for start in range(0, len(windows_NxT), BATCH)
    ]
    nll_NxT, right_NxT = (np.concatenate([np.asarray(found[i]) for found in scored]) for i in range(2))
    text = slice(every - 1, None, every)
    targets, right = windows_NxT[:, 1:][:, text], right_NxT[:, text]
    length = right.shape[1]
    frequent, rare = thirds(targets, counts_V)
    return {
        "loss": float(nll_NxT.mean(dtype=np.float64)),
        "text_loss": float(nll_NxT[:, text].mean(dtype=np.float64)),
        "accuracy": float(right.mean()),
        "beginning": float(right[:, : length // 8].mean()),
        "end": float(right[:, length // 2 :].mean()),
        "frequent": float(right[frequent].mean()),
        "rare": float(right[rare].mean()),
    }


def thirds(
    targets: Int[np.ndarray, "*shape"], counts_V: Int[np.ndarray, " vocab"]
) -> tuple[Bool[np.ndarray, "*shape"], Bool[np.ndarray, "*shape"]]:
    """Which targets are of the most and of the least frequent tokens, each about a third of all."""
    rank_V = np.empty(len(counts_V), int)
    rank_V[np.argsort(-counts_V, kind="stable")] = np.arange(len(counts_V))
    ranks = rank_V[targets]
    low, high = np.quantile(ranks, (1 / 3, 2 / 3))
    return ranks <= low, ranks > high


@partial(jax.jit, static_argnames="config")
def _scores(
    params: dict[str, Any], windows_BxT: Int[Array, "batch tokens"], config: ModelConfig
) -> tuple[Float[Array, "batch predicted"], Bool[Array, "batch predicted"]]:
    hidden = forward(params, windows_BxT[:, :-1], config, jnp.float32)
    return token_scores(hidden, head(params, config), windows_BxT[:, 1:])
