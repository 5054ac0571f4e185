"""Which of a grown model's new layers are to go."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_object
from lesa_jax.base.units import parse_numbers
from lesa_jax.planning.plan import Plan
from lesa_jax.ungrowth.settings import UngrowSettings


def choose(settings: UngrowSettings, plan: Plan) -> tuple[Sequence[int], ...]:
    """The positions of the new layers that the settings choose, for each of the plan's stacks.

    Raises:
      InputError: they choose an original, a layer that there is not, or none.
    """
    if plan.encoder is None:
        if settings.stack is not None:
            raise InputError(f"--stack {settings.stack}: the model has only one stack of layers; leave it out")
        return (choose_layers(settings, plan, ""),)
    if settings.idle is not None:
        raise InputError("--idle: lesa analyze looks at decoders alone; name the layers with --layers")
    wanted = [name for name, stack in plan.named if stack.new_layers and settings.stack in (None, "both", name.strip())]
    if not wanted:
        raise InputError(f"--stack {settings.stack}: none of its layers is new; there is nothing to take out")
    return tuple(choose_layers(settings, stack, name) if name in wanted else () for name, stack in plan.named)


def choose_layers(settings: UngrowSettings, plan: Plan, name: str) -> Sequence[int]:
    """Those of one stack, which is called so in messages."""
    if not plan.new_layers:
        raise InputError("growth.json calls no layer new; there is nothing to take out")
    if settings.layers is not None:
        return named_layers(settings.layers, plan, name)
    if settings.idle is not None:
        return idle_layers(settings.idle, settings.below, plan)
    return plan.new_layers


def named_layers(text: str, plan: Plan, name: str) -> Sequence[int]:
    """The layers of a list with ranges, which must be new ones."""
    numbers = sorted({*parse_numbers("--layers", text)})
    for number in numbers:
        if number >= plan.layers:
            raise InputError(f"--layers {text}: no {name}layer {number}; the model has 0-{plan.layers - 1}")
        if number not in plan.new_layers:
            new = ", ".join(map(str, plan.new_layers))
            raise InputError(f"--layers {text}: {name}layer {number} is an original, which stays; new are {new}")
    return numbers


def idle_layers(file: Path, most: float, plan: Plan) -> Sequence[int]:
    """The new layers without which the loss gains at most so much, nats a token, by an analysis of the model."""
    importance = read_importance(file, plan)
    found = [layer for layer in plan.new_layers if importance[layer] <= most]
    if not found:
        least = min(plan.new_layers, key=importance.__getitem__)
        raise InputError(
            f"--idle {file}: every new layer is missed more than --below {most:g}, layer {least} least "
            f"({importance[least]:.3g} nats a token); there is nothing to take out"
        )
    return found


def read_importance(file: Path, plan: Plan) -> list[float]:
    """What the loss gains without each layer, nats a token, from the analysis.json of a model with this plan."""
    layers = read_object("--idle", file).get("layers")
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise InputError(f"--idle {file}: has no list of layers; expected the analysis.json of lesa analyze")
    if len(layers) != plan.layers:
        raise InputError(f"--idle {file}: is of a model of {len(layers)} layers, this one has {plan.layers}")
    for number, layer in enumerate(layers):
        value = layer.get("importance")
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise InputError(f"--idle {file}: layer {number} has no number as its importance; analyze the model again")
        if layer.get("new") is not plan.slots[number].new:
            there, here = ("new" if new else "an original" for new in (layer.get("new"), plan.slots[number].new))
            raise InputError(
                f"--idle {file}: layer {number} is {there} there, but {here} in growth.json: it is of another model"
            )
    return [float(layer["importance"]) for layer in layers]
