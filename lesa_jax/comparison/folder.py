"""The folder of a comparison: what lies where, and which of several processes may write it.

compare.json has the settings, models/ the grown checkpoints, rows/ what was measured (NAME-SEED.json) and trained
(NAME-SEED.curve.json), runs/ the training runs, tokens/ the training data. Locks go with the process that holds them.
"""

from dataclasses import replace
from pathlib import Path

from lesa_jax import demo
from lesa_jax.base.files import write_text
from lesa_jax.base.settings import deciding
from lesa_jax.base.work_folder import Work
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.variants import BASE, Variant

START_LOCK = "start.lock"
MODELS = "models"
COMPARISON = Work("comparison", "compare.json", "no comparison", frozenset({START_LOCK}))


def make_output(output: Path) -> None:
    """Makes the folder where it is missing.

    Raises:
      InputError: it holds something else than a comparison.
    """
    COMPARISON.earlier(output)
    output.mkdir(parents=True, exist_ok=True)


def start(settings: CompareSettings) -> CompareSettings:
    """Keeps the settings of a new comparison, or recognises them; returns them with a text that lies on the disk.

    Raises:
      InputError: the folder holds a comparison with other settings.
    """
    output, text = settings.output, settings.output / "text.txt"
    earlier = COMPARISON.earlier(output)
    if earlier is None:
        (output / "rows").mkdir(exist_ok=True)
        if settings.text is None:
            write_text(text, demo.evaluation_text())
        COMPARISON.keep(output, deciding(settings))
    else:
        COMPARISON.check_same(output, earlier, deciding(settings))
    return settings if settings.text is not None else replace(settings, text=text)


def row_file(settings: CompareSettings, variant: Variant, seed: int) -> Path:
    return settings.output / "rows" / f"{variant.name}-{seed}.json"


def curve_file(settings: CompareSettings, variant: Variant, seed: int) -> Path:
    return settings.output / "rows" / f"{variant.name}-{seed}.curve.json"


def lock_file(settings: CompareSettings, variant: Variant, seed: int) -> Path:
    """Held by the process that trains this variant."""
    return settings.output / "rows" / f"{variant.name}-{seed}.lock"


def model_folder(settings: CompareSettings, variant: Variant, seed: int) -> Path:
    """Where the model is that a training seed starts from."""
    if variant == BASE:
        assert settings.model is not None
        return Path(settings.model)
    return settings.output / MODELS / f"{variant.name}-{variant.start(seed)}"
