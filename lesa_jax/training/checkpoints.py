"""Checkpoints of a training run, by Orbax: the trained tree, its moments, and where the data stood.

Frozen weights are not in them: they are the model's own files. Orbax writes each array in shards, beside the final
name, and renames at the end; a run that is killed finds its last complete checkpoint.
"""

import errno
from pathlib import Path
from typing import Any

from orbax.checkpoint import v1 as ocp

from lesa_jax.base.errors import InputError
from lesa_jax.training.state import TrainState


class Checkpoints:
    """The checkpoints of one run, numbered by step, the latest `keep` of them kept."""

    def __init__(self, folder: Path, keep: int):
        self.folder = folder
        training: Any = ocp.training  # its annotations and its policies disagree
        self.orbax = training.Checkpointer(
            folder.absolute(),
            save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(1),  # the loop decides
            preservation_policy=training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    @property
    def latest(self) -> int | None:
        """The step of the last complete checkpoint."""
        newest = self.orbax.latest
        return None if newest is None else newest.step

    def save(self, state: TrainState, step: int, facts: dict[str, Any]) -> None:
        """Copies the state and returns; writing goes on in the background. Waits for the save before.

        Args:
          state: to be saved; may be donated to the next step at once.
          step: how many steps it has seen.
          facts: JSON values that go with it.

        Raises:
          InputError: this save or the one before found no room; earlier checkpoints are untouched.
        """
        try:
            self.orbax.save_async(step, state, custom_metadata=facts)
        except Exception as error:
            raise self.explain(error) from error

    def facts(self) -> dict[str, Any]:
        """What was saved beside the latest state."""
        return dict(self.orbax.metadata(self.latest).custom_metadata or {})

    def restore(self, abstract: TrainState) -> TrainState:
        """The latest state, each array on the devices that `abstract` (shapes with shardings) names."""
        try:
            return self.orbax.load(self.latest, abstract)
        except Exception as error:
            raise InputError(
                f"{self.folder}/{self.latest}: cannot be restored ({first_line(error)}); delete this folder to go on "
                "from the checkpoint before"
            ) from error

    def close(self) -> None:
        """Waits for the last save.

        Raises:
          InputError: it found no room.
        """
        try:
            self.orbax.close()
        except Exception as error:
            raise self.explain(error) from error

    def explain(self, error: Exception) -> InputError:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        full = full or any(word in str(error) for word in ("No space left", "File too large", "quota exceeded"))
        reason = "the disk is full" if full else first_line(error)
        return InputError(
            f"{self.folder}: a checkpoint could not be written ({reason}); earlier ones are kept: free some space and "
            "run the same command again"
        )


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().split("\n")[0]
