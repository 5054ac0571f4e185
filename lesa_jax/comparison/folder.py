"""The folder of a comparison: what lies where, and which of several processes may write it.

compare.json has the settings and digests of what they name, text.txt and retain.txt the held-out texts, models/ the
grown checkpoints, rows/ what was measured (NAME-SEED.json) and trained (NAME-SEED.curve.json) and what models and runs
were made from, runs/ the training runs, tokens/ the training data. Locks go with the process that holds them.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import replace_file
from lesa_jax.base.folders import check_apart, check_writable, nearest_folder
from lesa_jax.base.work_folder import Work
from lesa_jax.comparison.basis import check_basis, record
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.variants import Variant

START_LOCK = "start.lock"
PRESENCE_LOCK = "presence.lock"  # shared by all processes that are at it
MODELS, RUNS, ROWS, TEXT = "models", "runs", "rows", "text.txt"
RETAINED = "retain.txt"
COMPARISON = Work("comparison", "compare.json", "no comparison", frozenset({START_LOCK, PRESENCE_LOCK}))


def earlier_comparison(output: Path) -> dict[str, Any] | None:
    """compare.json of a comparison that the folder holds; None where there is none yet.

    Raises:
      InputError: it holds something else, or compare.json is damaged.
    """
    try:
        return COMPARISON.earlier(output)
    except OSError as error:
        raise InputError(f"--output {output}: cannot be read ({error.strerror}); choose another folder") from None
    except InputError as error:
        damaged = output / COMPARISON.file
        if not damaged.exists():
            raise
        reason = str(error).removeprefix(f"{damaged}: ").removesuffix("; download it again")
        raise InputError(
            f"{damaged}: {reason}; what its comparison was made of is lost: remove {output}, or choose another --output"
        ) from None


def check_output(output: Path, model: Path) -> None:
    """Refuses a folder that cannot be a comparison's: in the model's way, something else, or not to be written to."""
    check_apart(output, model)
    earlier_comparison(output)
    check_writable(output, nearest_folder(output))


def start(
    settings: CompareSettings, text: bytes, digests: Mapping[str, Any], retained: bytes | None = None
) -> CompareSettings:
    """Keeps what a new comparison is made of, or recognises it.

    Args:
      settings: of the comparison.
      text: that is measured on. It is kept in the folder, so that nobody changes it while it is in use.
      digests: of what the comparison is made of (`basis`).
      retained: the text of what the model knew before, if there is one; kept, too.

    Returns:
      The settings with the texts that are kept.

    Raises:
      InputError: the folder holds a comparison with other settings, or of something else.
    """
    output, now = settings.output, record(settings, digests)
    earlier = earlier_comparison(output)
    if earlier is None:
        COMPARISON.keep(output, now)
    else:
        form, made_of = earlier.pop("format", None), earlier.pop("made_of", None)
        check_basis(output, form, made_of, now.pop("made_of"))
        del now["format"]
        COMPARISON.check_same(output, earlier, now)
    (output / ROWS).mkdir(exist_ok=True)
    settings = replace(settings, text=keep_text(output / TEXT, text))
    if retained is None:
        return settings
    kept = keep_text(output / RETAINED, retained)
    return replace(settings, training=replace(settings.training, retain_text=kept))


def keep_text(file: Path, text: bytes) -> Path:
    if not file.is_file() or file.read_bytes() != text:
        replace_file(file, lambda new: new.write_bytes(text))
    return file


def row_file(settings: CompareSettings, variant: Variant, seed: int) -> Path:
    return settings.output / ROWS / f"{variant.name}-{seed}.json"


def curve_file(settings: CompareSettings, variant: Variant, seed: int) -> Path:
    return settings.output / ROWS / f"{variant.name}-{seed}.curve.json"


def lock_file(settings: CompareSettings, variant: Variant, seed: int) -> Path:
    """Held by the process that trains this variant."""
    return settings.output / ROWS / f"{variant.name}-{seed}.lock"


def original_folder(settings: CompareSettings) -> Path:
    """Where the original model is."""
    assert settings.model is not None
    return Path(settings.model)


def model_folder(settings: CompareSettings, variant: Variant, seed: int) -> Path:
    """Where the model is that a training seed starts from."""
    if variant.is_original:
        return original_folder(settings)
    return settings.output / MODELS / f"{variant.name}-{variant.start(seed)}"
