"""growth.json: how a checkpoint was grown, so that training knows by itself which layers are new."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_json
from lesa_jax.planning.plan import Plan

FILE = "growth.json"
FORMAT = 1
PACKAGES = ("jax", "flax", "optax", "numpy", "safetensors", "transformers")


@dataclass(frozen=True)
class Growth:
    """The record of one expansion.

    Holds nothing that changes from run to run (no times, no paths), so the same seed gives the same bytes.

    Attributes:
      method: a name in `methods.METHODS`.
      plan: which layers are new.
      settings: the options that shaped the result.
      source: model name, revision, SHA-256 of each weight file.
      measurements: perplexities, norms, training losses.
      versions: of the packages that computed it.
    """

    method: str
    plan: Plan
    settings: Mapping[str, Any]
    source: Mapping[str, Any]
    measurements: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=lambda: {name: version(name) for name in PACKAGES})

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "method": self.method,
            "plan": self.plan.to_json(),
            "new_layers": list(self.plan.new_layers),
            "settings": dict(self.settings),
            "source": dict(self.source),
            "measurements": dict(self.measurements),
            "versions": dict(self.versions),
        }


def read_growth(folder: Path) -> Growth:
    """Reads growth.json of a grown checkpoint.

    Raises:
      InputError: there is none, or it is of another format.
    """
    value = read_json(folder / FILE, "only checkpoints grown by lesa_jax.expand have one")
    if value.get("format") != FORMAT:
        raise InputError(f"{folder / FILE}: format {value.get('format')}, expected {FORMAT}; update lesa_jax")
    plan = Plan.from_json(value["plan"])
    return Growth(value["method"], plan, value["settings"], value["source"], value["measurements"], value["versions"])
