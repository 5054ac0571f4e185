"""Makes trained language models deeper: LESA and other depth growth methods in JAX, on Hugging Face checkpoints.

The names below are imported when they are first used (PEP 562): `import lesa_jax` is quick, and what only plans or
copies needs no JAX. The commands are functions of their modules: `from lesa_jax.expand import expand`.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lesa_jax.analysis.settings import AnalyzeSettings
    from lesa_jax.base.errors import InputError
    from lesa_jax.checkpoint.reader import open_checkpoint
    from lesa_jax.comparison.settings import CompareSettings
    from lesa_jax.decoding.settings import GenerateSettings
    from lesa_jax.evaluation.settings import EvaluateSettings
    from lesa_jax.growth.settings import ExpandSettings
    from lesa_jax.models.decoder import forward, logits
    from lesa_jax.models.load import load_model
    from lesa_jax.planning.methods import METHODS, Method, register
    from lesa_jax.planning.placement import make_plan
    from lesa_jax.planning.plan import Plan
    from lesa_jax.profiles.settings import ProfileSettings
    from lesa_jax.tasks.settings import HarnessSettings
    from lesa_jax.training.settings import TrainSettings
    from lesa_jax.ungrowth.settings import UngrowSettings
    from lesa_jax.widening.settings import WidenSettings

    __version__: str

__all__ = [
    "METHODS",
    "AnalyzeSettings",
    "CompareSettings",
    "EvaluateSettings",
    "ExpandSettings",
    "GenerateSettings",
    "HarnessSettings",
    "InputError",
    "Method",
    "Plan",
    "ProfileSettings",
    "TrainSettings",
    "UngrowSettings",
    "WidenSettings",
    "__version__",
    "forward",
    "load_model",
    "logits",
    "make_plan",
    "open_checkpoint",
    "register",
]

_HOMES = {
    "AnalyzeSettings": "analysis.settings",
    "CompareSettings": "comparison.settings",
    "EvaluateSettings": "evaluation.settings",
    "ExpandSettings": "growth.settings",
    "GenerateSettings": "decoding.settings",
    "HarnessSettings": "tasks.settings",
    "InputError": "base.errors",
    "METHODS": "planning.methods",
    "Method": "planning.methods",
    "Plan": "planning.plan",
    "ProfileSettings": "profiles.settings",
    "TrainSettings": "training.settings",
    "UngrowSettings": "ungrowth.settings",
    "WidenSettings": "widening.settings",
    "forward": "models.decoder",
    "load_model": "models.load",
    "logits": "models.decoder",
    "make_plan": "planning.placement",
    "open_checkpoint": "checkpoint.reader",
    "register": "planning.methods",
}

# transformers is here for tokenizers and configs; that it finds no torch is as intended and needs no advice.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # slow to import

        value: Any = version("lesa_jax")
    elif name in _HOMES:
        value = getattr(import_module(f"lesa_jax.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'lesa_jax' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
