"""Which token comes next."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lesa_jax.base.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
      temperature: by which logits are divided; 0 takes the likeliest token.
      top_p: of the likeliest tokens only so many may be chosen as it takes to make up this probability ("nucleus
        sampling", arXiv 1904.09751).
    """

    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"--temperature {self.temperature}: expected 0, for the likeliest token, or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"--top-p {self.top_p}: expected a probability above 0, up to 1")


LIKELIEST = Sampling()


def choose(
    logits_BxV: Float[Array, "batch vocab"], keys_B: Key[Array, " batch"], sampling: Sampling
) -> Int[Array, " batch"]:
    """A token for each text, by its own random key."""
    if sampling.temperature == 0:
        return jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
    logits_BxV = logits_BxV / sampling.temperature
    if sampling.top_p < 1:
        logits_BxV = jnp.where(nucleus(logits_BxV, sampling.top_p), logits_BxV, -jnp.inf)
    return jax.vmap(jax.random.categorical)(keys_B, logits_BxV).astype(jnp.int32)


def nucleus(logits_BxV: Float[Array, "batch vocab"], top_p: float) -> Array:
    """Which tokens are in the smallest set of likeliest ones whose probability is at least `top_p`."""
    order_BxV = jnp.argsort(logits_BxV, axis=-1, descending=True)
    shares_BxV = jax.nn.softmax(jnp.take_along_axis(logits_BxV, order_BxV, axis=-1), axis=-1)
    before_BxV = jnp.cumsum(shares_BxV, axis=-1) - shares_BxV
    return jnp.take_along_axis(before_BxV < top_p, jnp.argsort(order_BxV, axis=-1), axis=-1)
