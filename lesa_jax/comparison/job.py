"""A comparison as its options ask for it, once they are checked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lesa_jax import demo
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_text
from lesa_jax.base.settings import command_line
from lesa_jax.checkpoint.hub import resolve_model
from lesa_jax.checkpoint.reader import Checkpoint, open_checkpoint
from lesa_jax.comparison.basis import Basis, find_basis
from lesa_jax.comparison.folder import check_output
from lesa_jax.comparison.lineup import CONTROL, line_up
from lesa_jax.comparison.public import shown_settings
from lesa_jax.comparison.settings import CompareSettings, check_settings
from lesa_jax.comparison.variants import Variant, placements
from lesa_jax.evaluation.protocol import row_length
from lesa_jax.families.model import ModelConfig
from lesa_jax.families.stacks import count_stacks
from lesa_jax.growth.ranking import rank_layers
from lesa_jax.models.config import read_config
from lesa_jax.planning.methods import MEASURED, find_method
from lesa_jax.planning.placement import make_plan
from lesa_jax.training.lora import PREFIX, equal_rank, with_adapters


@dataclass(frozen=True)
class CompareJob:
    """What is to be compared, and how.

    Attributes:
      settings: with the model as a folder and the sequence length as a number.
      variants: the rows, base first.
      basis: the files that all of it is read from.
      text_name, retained_name: of the held-out texts; None of one that there is not.
      command: that asks for this comparison, with the options as they were given, but no paths from elsewhere.
    """

    settings: CompareSettings
    variants: tuple[Variant, ...]
    basis: Basis
    text_name: str
    retained_name: str | None
    command: str


def make_compare_job(settings: CompareSettings) -> CompareJob:
    """Checks the options, and writes nothing.

    Raises:
      InputError: options that mean nothing, no such model or text, a model that cannot be evaluated, an output that is
        something else.
    """
    check_settings(settings)
    base = demo.MODEL_DIRECTORY if settings.model is None else resolve_model(settings.model, settings.revision)
    check_output(settings.output, base)
    checkpoint = open_checkpoint(base)
    config = read_config(checkpoint.config)
    depths = count_stacks(checkpoint.config)
    rank = lora_rank(settings, config, depths) if settings.training.lora else None
    wanted = line_up(settings, depths, rank, measure_rankings(settings, checkpoint))
    known = settings.training.retain_text
    length = row_length(settings.ppl_protocol, config, settings.sequence_length)
    retained = None if known is None else text_bytes("--retain-text", known)
    return CompareJob(
        settings=replace(settings, model=str(base), revision=None, sequence_length=length),
        variants=wanted,
        basis=find_basis(settings, held_out_text(settings), checkpoint, retained),
        text_name=demo.TEXT_NAME if settings.text is None else settings.text.name,
        retained_name=None if known is None else known.name,
        command=command_line("python -m lesa_jax.compare", shown_settings(settings)),
    )


def measure_rankings(settings: CompareSettings, checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """The order of the layers for each measured placement, on what the model knew before, if a text of that is given.

    Raises:
      InputError: a placement that there is not, or a model or a text that nothing can be measured of.
    """
    places = [place for place in placements(settings) if place in MEASURED]
    if not places:
        return {}
    known = settings.training.retain_text
    if known is None and settings.text is None:
        raise InputError(f"--placements {places[0]}: is measured on a text; name one with --text or --retain-text")
    text = (held_out_text(settings) if known is None else text_bytes("--retain-text", known)).decode()
    return {place: rank_layers(checkpoint, place, text) for place in places if place is not None}


def lora_rank(settings: CompareSettings, config: ModelConfig, depths: Sequence[int]) -> int:
    """The rank at which adapters have as many numbers as the layers that are new at the target depth.

    Raises:
      InputError: a model that has no adapters.
    """
    plan = make_plan(depths[0], find_method(CONTROL), settings.layers)
    rank = equal_rank(config, len(plan.new_layers))
    with_adapters(config, f"{PREFIX}{rank}")
    return rank


def held_out_text(settings: CompareSettings) -> bytes:
    """That of the demo model, or the user's."""
    return demo.evaluation_text().encode() if settings.text is None else text_bytes("--text", settings.text)


def text_bytes(option: str, path: Path) -> bytes:
    """The file's bytes; they are text."""
    read_text(option, path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be read ({error.strerror})") from None
