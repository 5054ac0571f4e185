"""The options of `python -m lesa_jax.expand`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import check_seed, deciding, flatten, free, option
from lesa_jax.planning.methods import (
    MEASURED,
    OWNERS,
    PUBLISHED,
    Lesa,
    Method,
    NormSource,
    Placement,
    PredictorSettings,
    find_method,
)
from lesa_jax.planning.placement import GrownStack

TEXTS = ("fit_routers", "match_experts")  # of those in OWNERS the ones that name a text: who does wants something done
# The options that say where new layers go.
WHERE = ("layers", "stack", "gaps", "placement", "every", "placement_text")


@dataclass(frozen=True)
class ExpandSettings:
    """Make a trained language model deeper by putting new layers between the old ones.

    Without options, the small demo model that comes with lesa_jax grows from 16 to 24 layers into ./expanded. Works on
    any Hugging Face checkpoint whose tensors carry layer numbers; perplexity is measured for families that run here.

    Examples:
      python -m lesa_jax.expand --model ./Llama-3-8B --output ./Llama-3-11B
      python -m lesa_jax.expand --model Qwen/Qwen2.5-1.5B --output out --gaps 14-26 --eval-text sample.txt
      python -m lesa_jax.expand --model ./my-model --output out --method llama_pro --layers 40 --dry-run
    """

    model: str | None = free(None)
    """Folder with config.json and safetensors, or a hub id (org/name). By default the demo model."""
    output: Path = free(Path("expanded"))
    """Folder to create."""
    revision: str | None = free(None)
    """Branch, tag or commit, for a hub id."""

    method: str = "llama_pro"
    """llama_pro: copies with silenced outputs, so that the function does not change until they are trained; what won
    wherever it was measured. lesa: layers predicted from both neighbours, as loud as the predictor is right;
    lesa_published: at full loudness. solar: two overlapping copies of the model stacked. duplicate: plain copies in
    place. Others: lesa_raw, tli, tli_zero, average, opt_deus, opt_deus_published,
    g_stack, interpolate, msg (the same, to be trained with --mask-steps), lemon; for mixtures of experts lesa_matched,
    average_matched; and as controls: identity, identity_next, random, random_lowrank, average_scaled, shuffled."""
    layers: int | None = None
    """Target depth; by default one and a half times the model's."""
    stack: GrownStack | None = None
    """Of an encoder-decoder, which layers grow; by default both stacks. --layers and --gaps count in each by itself."""
    gaps: str | None = None
    """Where exactly, instead of --layers: 15-30 or 3,5,7. Gap g lies between layers g and g+1; 3,3 puts two there."""
    plan: Path | None = None
    """Layer by layer, instead of --layers: a JSON file with a plan as growth.json has it, or {"gaps": [3, 5, 5]}."""
    placement: Placement | None = None
    """Where --layers puts them: top is LESA's default, even that of llama_pro and duplicate; ends is both ends; periods
    repeats whole periods of a model whose layers alternate (windows, rotations), so that old ones keep their places;
    importance goes next to the layers without which the loss on --placement-text is least, influence next to those that
    turn the residual stream least."""
    placement_text: Path | None = None
    """importance and influence: the text, of what the model knows, on whose first tokens they are measured."""
    every: int | None = None
    """tli, instead of --layers: a new layer after every so many."""
    output_scale: float | None = None
    """Factor on all that a new layer writes into the residual stream; 0 leaves the model's function unchanged."""
    calibrate: Path | None = None
    """Choose such a factor for each new layer, so that the loss on the first tokens of this text is least."""
    fit_routers: Path | None = None
    """Mixtures of experts: fit the routers of new layers to their neighbours' on the first tokens of this text."""
    match_experts: Path | None = None
    """lesa_matched, average_matched: match the experts that the first tokens of this text go through, instead of those
    that are alike by their weights."""
    keep_profile: bool = False
    """Where layers differ in size (OpenELM's layout): new ones get sizes between those of the layers around them, and
    not those of the layer that they copy. By HyperCloning's rule, so that wider copies compute what they would."""
    norm_source: NormSource | None = None
    """Whose norm weights and biases a new layer gets that is no copy: by default the method's; lesa takes the first
    layer's, as the public code does."""
    seed: int = 0
    """Of LESA's predictor and the order of its samples, and of random layers."""
    predictor: PredictorSettings = PUBLISHED

    eval_text: Path | None = free(None)
    """Measure perplexity on this text before and after."""
    ppl_protocol: Literal["corpus", "line"] = "corpus"
    """corpus: exp(loss per token of the whole text). line: mean over lines of exp(loss of a line), as in the paper."""
    sequence_length: int | None = None
    """Tokens per window of the corpus protocol; by default 1024, or fewer if the model has fewer positions."""

    memory: str | None = free(None)
    """Most that computing new layers may take, such as 16GB; by default three quarters of what is free. What does not
    fit goes into a scratch file beside the output. The result does not depend on it."""
    shard_size: float = 5.0
    """Largest size of an output file in GB (1e9 bytes)."""
    dry_run: bool = free(False)
    """Print plan, parameters, memory and bytes to write; touch nothing."""
    overwrite: bool = free(False)
    """Replace an earlier output of this program."""
    push_to_hub: str | None = free(None)
    """Upload what was made as this model on the Hugging Face hub (ORG/NAME), which is made where it is missing."""
    debug: bool = free(False)
    """Show where an error came from, not only what it is."""


def check_settings(settings: ExpandSettings, method: Method) -> None:
    """Refuses options that contradict each other or the method, or cannot mean anything.

    Raises:
      InputError: the option, and what it belongs to or must be.
    """
    given = flatten(settings)
    if texts := [name for name in out_of_place(settings, method) if name in TEXTS]:
        raise InputError(f"{option(texts[0])} belongs to {OWNERS[texts[0]]}, not to {settings.method}")
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{option(name)} {value}: must be a finite number")
    for name in ("epochs", "batch_size", "learning_rate", "hidden_size", "rank", "shard_size"):
        if given[name] is not None and not given[name] > 0:
            raise InputError(f"{option(name)} {given[name]}: must be positive")
    check_seed(settings.seed)
    if settings.predictor.rank is not None and isinstance(method.start, Lesa) and method.start.space != "svd":
        raise InputError(f"--rank is that of an SVD: {settings.method} works without one")
    if not 0 <= settings.predictor.norm_weight < 1:
        raise InputError(f"--norm-weight {settings.predictor.norm_weight}: must lie in [0, 1)")
    if settings.sequence_length is not None and settings.sequence_length < 2:
        raise InputError(f"--sequence-length {settings.sequence_length}: at least 2 tokens are needed to predict one")
    for name in WHERE[:-1]:
        if settings.plan is not None and given[name] is not None:
            raise InputError(f"--plan says where every new layer goes: leave out {option(name)}")
    measured = settings.placement in MEASURED
    if measured != (settings.placement_text is not None):
        raise InputError(
            f"--placement {settings.placement}: is measured on a text; name one with --placement-text"
            if measured
            else f"--placement-text: is what --placement {' and '.join(MEASURED)} are measured on"
        )
    if settings.output_scale is not None and settings.calibrate is not None:
        raise InputError("--calibrate finds the scale by itself: leave out --output-scale")


def out_of_place(settings: ExpandSettings, method: Method) -> list[str]:
    """The options that were given and mean nothing to this method; others in a loop over methods may want them."""
    given, defaults = flatten(settings), flatten(ExpandSettings())
    return [name for name in OWNERS if name not in method.options and given[name] != defaults[name]]


def output_scale(settings: ExpandSettings, method: Method) -> float:
    """The factor that new layers are written with; calibration chooses its own later."""
    if settings.calibrate is not None:
        return 1.0
    return method.scale if settings.output_scale is None else settings.output_scale


def norm_source(settings: ExpandSettings, method: Method) -> NormSource:
    return settings.norm_source or method.norm_source


def options_of_growth(document: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    """The options that make again what a growth.json tells of; any other document is a list of options itself.

    Layers go where they went, whatever rule put them there.
    """
    settings = document.get("settings")
    if not isinstance(settings, dict):
        return document
    used = dict(settings)
    if find_method(str(settings.get("method"))).stacking is None:
        used = {name: value for name, value in used.items() if name not in WHERE} | {"plan": file}
    return used


def recorded_settings(settings: ExpandSettings, method: Method) -> dict[str, Any]:
    """What growth.json keeps: the settings that shaped the result, none of them a path."""
    used = {name: value for name, value in deciding(settings).items() if name not in OWNERS or name in method.options}
    if "norm_source" in used:
        used["norm_source"] = norm_source(settings, method)
    for file in {"fit_routers", "match_experts", "placement_text", "plan"} & used.keys():
        used[file] = getattr(settings, file) is not None
    calibrated = settings.calibrate is not None
    return used | {"calibrate": calibrated, "output_scale": None if calibrated else output_scale(settings, method)}
