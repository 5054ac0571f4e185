"""What a profile made of a shape."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesa_jax.profiles.named import Profile
from lesa_jax.profiles.sizes import Shape, Sizes, count_parameters


@dataclass(frozen=True)
class Made:
    """One model: its sizes, and the profile, as it was moved, that made them; None for explicit lists."""

    shape: Shape
    sizes: Sizes
    profile: Profile | None = None

    @property
    def name(self) -> str:
        return "explicit" if self.profile is None else self.profile.name

    @property
    def parameters(self) -> int:
        return count_parameters(self.shape, self.sizes)

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {
            "profile": self.name,
            "ffn": list(self.sizes.ffn),
            "q_heads": list(self.sizes.q_heads),
            "kv_heads": list(self.sizes.kv_heads),
            "parameters": self.parameters,
        }
        if self.profile is not None:
            value |= {"ffn_points": list(self.profile.ffn), "head_points": list(self.profile.qkv)}
        return value


@dataclass(frozen=True)
class ProfileResult:
    """What `lesa_jax.profile` found.

    Attributes:
      made: the model that was asked for, or all five.
      budget: parameters that they were to have, if any.
      config: where config.json was written, if it was.
      json: whether it is shown as JSON.
    """

    made: tuple[Made, ...]
    budget: int | None = None
    config: Path | None = None
    json: bool = False
