"""The options of `python -m lesa_jax.harness`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lesa_jax.base.settings import free


@dataclass(frozen=True)
class HarnessSettings:
    """Score a checkpoint on tasks of EleutherAI's lm-evaluation-harness, without torch.

    Three tasks come along and need no network: lesa_cloze (which word comes next), lesa_choice (which continuation is
    the passage's own) and lesa_text (perplexity), made from --text. Without options: the demo model on all three.
    """

    model: str | None = None
    """Folder with config.json and safetensors, or a hub id (org/name). By default the demo model."""
    tasks: str = "lesa"
    """Names of tasks or of groups of them, with commas; lesa: the three that come along; opt_deus: the eight of
    arXiv 2508.08011."""
    text: Path | None = None
    """UTF-8 text file that lesa_cloze, lesa_choice and lesa_text are made from; by default the demo model's."""
    include_path: Path | None = None
    """Folder with more tasks, as YAML files."""
    num_fewshot: int | None = None
    """Solved examples before each question; by default what a task says, or none."""
    limit: int | None = None
    """Ask only so many questions of each task, to try it out."""
    chat: bool = False
    """Put questions to the model as a user's messages, by its own chat template."""
    batch_size: int = 16
    """Texts computed at once."""
    max_length: int | None = None
    """Tokens that are read at most; by default as many as the model has positions."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation."""
    mesh: str = free("data=1,fsdp=-1,tensor=1")
    """How devices are arranged; -1 takes those that are left."""
    output: Path | None = free(None)
    """JSON file for the results, in lm-evaluation-harness's format."""
    revision: str | None = None
    """Branch, tag or commit, for a hub id."""
    debug: bool = free(False)
    """Show where an error came from, not only what it is."""
