"""Shared by all tests: annotations are enforced, ranks are not promoted silently, and small checkpoints are at hand."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"

from jaxtyping import install_import_hook

install_import_hook("lesa_jax", "beartype.beartype")

import jax
import pytest
import torch
import transformers

jax.config.update("jax_numpy_rank_promotion", "raise")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)  # tiny models are slower on many threads, above all beside JAX's own

SHARED = Path(__file__).parent.parent.parent / "shared"


@pytest.fixture(scope="session")
def books16() -> Path:
    """A real trained checkpoint that lies beside the project where it is developed; elsewhere these tests skip."""
    folder = SHARED / "models" / "books16"
    if not folder.exists():
        pytest.skip(f"{folder} is not on this machine")
    return folder
