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
CHANGES = ("dropped", "trained")  # measurements of what became of a model afterwards
PACKAGES = ("jax", "flax", "optax", "numpy", "safetensors", "transformers")


@dataclass(frozen=True)
class Growth:
    """The record of one expansion.

    Holds nothing that changes from run to run (no times, no paths): one machine gives the same bytes for the same seed.

    Attributes:
      method: a name in `methods.METHODS`.
      plan: which layers are new.
      settings: the options that shaped the result.
      source: model name, revision, SHA-256 of each weight file and how many tensors it has, and what growth changed in
        config.json.
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


def read_growth(folder: Path, layers: int, encoder_layers: int | None = None) -> Growth:
    """Reads growth.json of a grown checkpoint.

    Args:
      folder: of the checkpoint.
      layers: how many the checkpoint has, which growth.json must speak of; of an encoder-decoder, its decoder.
      encoder_layers: how many its encoder has, if it has one.

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
    try:
        plan = Plan.from_json(value["plan"])
    except ValueError as error:
        raise damaged(file, str(error)) from None
    if value["new_layers"] != list(plan.new_layers):
        raise damaged(file, f"new_layers are not those of its plan, {list(plan.new_layers)}")
    for name, there, here in (("", plan.layers, layers), (" in its encoder", depth_of(plan.encoder), encoder_layers)):
        if there != here:
            raise InputError(
                f"{file}: its plan has {there or 0} layers{name}, but the model has {here or 0}; "
                "the file belongs to another model: take the one that was written with these weights, or remove it"
            )
    parameters = value["measurements"].get("parameters")
    if not isinstance(parameters, dict) or not all(is_integer(parameters.get(when)) for when in ("before", "after")):
        raise damaged(file, "measurements has no numbers of parameters before and after")
    for name in CHANGES:
        if not isinstance(value["measurements"].get(name, []), list):
            raise damaged(file, f"{name} in its measurements is no list")
    facts = (value[key] for key in ("settings", "source", "measurements", "versions"))
    return Growth(value["method"], plan, *facts, machine=value.get("machine", {}))


def not_as_grown(measurements: Mapping[str, Any]) -> dict[str, Any]:
    """The measurements of a model that was changed since it was grown: what was measured then is named so."""
    at_growth = {key: value for key, value in measurements.items() if key not in ("parameters", *CHANGES)}
    later = {key: measurements[key] for key in CHANGES if key in measurements}
    return {
        "parameters": measurements.get("parameters", {}),
        "at_growth": at_growth.get("at_growth", at_growth),
        **later,
    }


def depth_of(plan: Plan | None) -> int | None:
    return None if plan is None else plan.layers


def damaged(file: Path, what: str) -> InputError:
    return InputError(f"{file}: damaged ({what}); take it again from where the model was grown")
