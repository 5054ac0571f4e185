"""The folder of a comparison: what lies where, and which of several processes may write it.

compare.json has the settings and digests of what they name, text.txt the held-out text, models/ the grown checkpoints,
rows/ what was measured (NAME-SEED.json) and trained (NAME-SEED.curve.json) and what models and runs were made from,
runs/ the training runs, tokens/ the training data. Locks go with the process that holds them.
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
from lesa_jax.comparison.variants import BASE, Variant

START_LOCK = "start.lock"
PRESENCE_LOCK = "presence.lock"  # shared by all processes that are at it
MODELS, RUNS, ROWS, TEXT = "models", "runs", "rows", "text.txt"
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


def start(settings: CompareSettings, text: bytes, digests: Mapping[str, Any]) -> CompareSettings:
    """Keeps what a new comparison is made of, or recognises it.

    Args:
      settings: of the comparison.
      text: that is measured on. It is kept in the folder, so that nobody changes it while it is in use.
      digests: of what the comparison is made of (`basis`).

    Returns:
      The settings with the text that is kept.

    Raises:
      InputError: the folder holds a comparison with other settings, or of something else.
    """
    output, now = settings.output, record(settings, digests)
    earlier = earlier_comparison(output)
    if earlier is None:
        COMPARISON.keep(output, now)
    else:
        check_basis(output, earlier.pop("made_of", None), now["made_of"])
        COMPARISON.check_same(output, earlier, {name: value for name, value in now.items() if name != "made_of"})
    (output / ROWS).mkdir(exist_ok=True)
    kept = output / TEXT
    if not kept.is_file() or kept.read_bytes() != text:
        replace_file(kept, lambda file: file.write_bytes(text))
    return replace(settings, text=kept)


def row_file(settings: CompareSettings, variant: Variant, seed: int) -> Path:
    return settings.output / ROWS / f"{variant.name}-{seed}.json"


def curve_file(settings: CompareSettings, variant: Variant, seed: int) -> Path:
    return settings.output / ROWS / f"{variant.name}-{seed}.curve.json"


def lock_file(settings: CompareSettings, variant: Variant, seed: int) -> Path:
    """Held by the process that trains this variant."""
    return settings.output / ROWS / f"{variant.name}-{seed}.lock"


def model_folder(settings: CompareSettings, variant: Variant, seed: int) -> Path:
    """Where the model is that a training seed starts from."""
    if variant == BASE:
        assert settings.model is not None
        return Path(settings.model)
    return settings.output / MODELS / f"{variant.name}-{variant.start(seed)}"
