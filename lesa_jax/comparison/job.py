"""A comparison as its options ask for it, once they are checked."""

from dataclasses import dataclass, replace

from lesa_jax import demo
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_text
from lesa_jax.base.settings import command_line
from lesa_jax.checkpoint.hub import resolve_model
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.comparison.basis import Basis, find_basis
from lesa_jax.comparison.folder import TEXT, check_output
from lesa_jax.comparison.lineup import line_up
from lesa_jax.comparison.public import shown_settings
from lesa_jax.comparison.settings import CompareSettings, check_settings
from lesa_jax.comparison.variants import Variant
from lesa_jax.evaluation.protocol import row_length
from lesa_jax.models.config import read_config


@dataclass(frozen=True)
class CompareJob:
    """What is to be compared, and how.

    Attributes:
      settings: with the model as a folder and the sequence length as a number.
      variants: the rows, base first.
      basis: the files that all of it is read from.
      text_name: of the held-out text.
      command: that asks for this comparison, with the options as they were given, but no paths from elsewhere.
    """

    settings: CompareSettings
    variants: tuple[Variant, ...]
    basis: Basis
    text_name: str
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
    wanted = line_up(settings, config.num_layers)
    length = row_length(settings.ppl_protocol, config, settings.sequence_length)
    return CompareJob(
        settings=replace(settings, model=str(base), revision=None, sequence_length=length),
        variants=wanted,
        basis=find_basis(settings, held_out_text(settings), checkpoint),
        text_name=TEXT if settings.text is None else settings.text.name,
        command=command_line("python -m lesa_jax.compare", shown_settings(settings)),
    )


def held_out_text(settings: CompareSettings) -> bytes:
    """The file's bytes; they are text."""
    if settings.text is None:
        return demo.evaluation_text().encode()
    read_text("--text", settings.text)
    try:
        return settings.text.read_bytes()
    except OSError as error:
        raise InputError(f"--text {settings.text}: cannot be read ({error.strerror})") from None
