"""A comparison as its options ask for it, once they are checked."""

from dataclasses import dataclass, replace

from lesa_jax import demo
from lesa_jax.base.files import read_text
from lesa_jax.base.settings import command_line
from lesa_jax.checkpoint.hub import resolve_model
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.comparison.lineup import line_up
from lesa_jax.comparison.settings import CompareSettings, check_settings
from lesa_jax.comparison.variants import Variant
from lesa_jax.evaluation.protocol import row_length
from lesa_jax.models.config import ModelConfig


@dataclass(frozen=True)
class CompareJob:
    """What is to be compared, and how.

    Attributes:
      settings: with the model as a folder and the sequence length as a number.
      variants: the rows, base first.
      command: that asks for this comparison, with the options as they were given.
    """

    settings: CompareSettings
    variants: tuple[Variant, ...]
    command: str


def make_compare_job(settings: CompareSettings) -> CompareJob:
    """Checks the options, and writes nothing.

    Raises:
      InputError: options that mean nothing, no such model or text, a model that cannot be evaluated.
    """
    check_settings(settings)
    base = demo.MODEL_DIRECTORY if settings.model is None else resolve_model(settings.model, settings.revision)
    config = ModelConfig.from_hf(open_checkpoint(base).config)
    wanted = line_up(settings, config.num_layers)
    length = row_length(settings.ppl_protocol, config, settings.sequence_length)
    if settings.text is not None:
        read_text("--text", settings.text)
    command = command_line("python -m lesa_jax.compare", settings)
    return CompareJob(replace(settings, model=str(base), revision=None, sequence_length=length), wanted, command)
