"""growth.json: how a checkpoint was grown, so that training knows by itself which layers are new."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_json
from lesa_jax.families.entries import is_integer
from lesa_jax.planning.plan import Plan

FILE = "growth.json"
FORMAT = 1
KINDS = {"method": str, "new_layers": list} | dict.fromkeys(
    ("plan", "settings", "source", "measurements", "versions"), dict
)
PACKAGES = ("jax", "flax", "optax", "numpy", "safetensors", "transformers")


@dataclass(frozen=True)
class Growth:
    """The record of one expansion.

    Holds nothing that changes from run to run (no times, no paths): one machine gives the same bytes for the same seed.

    Attributes:
      method: a name in `methods.METHODS`.
      plan: which layers are new.
      settings: the options that shaped the result.
      source: model name, revision, SHA-256 of each weight file.
      measurements: perplexities, norms, training losses.
      versions: of the packages that computed it.
      machine: that computed it; empty where tensors were only copied, which every machine does alike.
    """

    method: str
    plan: Plan
    settings: Mapping[str, Any]
    source: Mapping[str, Any]
    measurements: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=lambda: {name: version(name) for name in PACKAGES})
    machine: Mapping[str, Any] = field(default_factory=dict)

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
            **({"machine": dict(self.machine)} if self.machine else {}),
        }


def read_growth(folder: Path, layers: int) -> Growth:
    """Reads growth.json of a grown checkpoint.

    Args:
      folder: of the checkpoint.
      layers: how many the checkpoint has, which growth.json must speak of.

    Raises:
      InputError: there is none, it is of another format or damaged, or it tells of another model.
    """
    file = folder / FILE
    value = read_json(file, "only checkpoints grown by lesa_jax.expand have one")
    if value.get("format") != FORMAT:
        raise InputError(f"{file}: format {value.get('format')!r}, expected {FORMAT}; update lesa_jax")
    for key, kind in KINDS.items():
        if not isinstance(value.get(key), kind):
            raise damaged(file, f"{key} is {type(value.get(key)).__name__}, expected {kind.__name__}")
    plan = read_plan(file, value["plan"])
    if value["new_layers"] != list(plan.new_layers):
        raise damaged(file, f"new_layers are not those of its plan, {list(plan.new_layers)}")
    if plan.layers != layers:
        raise InputError(
            f"{file}: its plan has {plan.layers} layers, but the model has {layers}; "
            "the file belongs to another model: take the one that was written with these weights, or remove it"
        )
    parameters = value["measurements"].get("parameters")
    if not isinstance(parameters, dict) or not all(is_integer(parameters.get(when)) for when in ("before", "after")):
        raise damaged(file, "measurements has no numbers of parameters before and after")
    facts = (value[key] for key in ("settings", "source", "measurements", "versions"))
    return Growth(value["method"], plan, *facts, machine=value.get("machine", {}))


def read_plan(file: Path, plan: Mapping[str, Any]) -> Plan:
    """The plan, whose originals must stand in order and whose new layers must name an original.

    Raises:
      InputError: it is damaged.
    """
    source, slots = plan.get("source_layers"), plan.get("slots")
    if not is_integer(source) or not isinstance(slots, list):
        raise damaged(file, "its plan has no source_layers or no slots")
    for position, slot in enumerate(slots):
        layer, new = (slot.get("layer"), slot.get("new", False)) if isinstance(slot, dict) else (None, None)
        if not is_integer(layer) or not 0 <= layer < source or not isinstance(new, bool):
            raise damaged(file, f"slot {position} of its plan is no layer of 0-{source - 1}, old or new")
    try:
        return Plan.from_json(plan)
    except ValueError as error:
        raise damaged(file, str(error)) from None


def damaged(file: Path, what: str) -> InputError:
    return InputError(f"{file}: damaged ({what}); take it again from where the model was grown")
