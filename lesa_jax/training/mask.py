"""Masked structural growth."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@dataclass(frozen=True)
class Mask:
    """Masked structural growth (MSG, arXiv 2305.02869): `layers` count for a share that rises from 0 to 1 in `steps`.

    A layer's output is x + share (layer(x) - x): at first the model is the original, whatever its new layers hold, and
    after `steps` it is a plain model again.
    """

    layers: tuple[int, ...]
    steps: int
    encoder_layers: tuple[int, ...] = ()  # of an encoder-decoder: those of its encoder; the others are its decoder's

    def of_encoder(self) -> "Mask":
        return Mask(self.encoder_layers, self.steps)

    def shares(self, step: int | Int[Array, ""], total: int) -> Float[Array, " layers"]:
        """For all `total` layers, after so many steps."""
        masked = np.isin(np.arange(total), self.layers)
        return jnp.where(masked, jnp.clip(jnp.asarray(step, jnp.float32) / self.steps, 0, 1), 1)
