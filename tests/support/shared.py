"""Where a real model and texts lie beside the project, on the machines where it is developed."""

from pathlib import Path

SHARED = Path(__file__).parents[3] / "shared"
