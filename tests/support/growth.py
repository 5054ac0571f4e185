"""What the tests of growth share: a quick expansion, and tokens to look at its result with."""

from pathlib import Path
from typing import Any

import numpy as np

from lesa_jax.growth.result import ExpandResult
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.planning.methods import METHODS, Lesa, PredictorSettings

TOKENS = np.random.default_rng(0).integers(3, 64, (2, 24)).tolist()
QUICK = {"predictor": PredictorSettings(epochs=1, hidden_size=16, batch_size=32)}


def grow(source: Path, output: Path, method: str = "lesa", **options: Any) -> ExpandResult:
    """By a predictor that learns next to nothing, but where experts are matched."""
    start = METHODS[method].start
    quick = QUICK if isinstance(start, Lesa) and not start.matched else {}
    return expand(ExpandSettings(str(source), output, method=method, **(quick | options)))
