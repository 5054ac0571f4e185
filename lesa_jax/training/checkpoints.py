"""Checkpoints of a training run, by Orbax: the trained tree, its moments, and where the data stood.

Frozen weights are not in them: they are the model's own files. Orbax writes each array in shards, beside the final
name, and renames at the end; a run that is killed finds its last complete checkpoint. What is read back is compared
with checksums that were made before it was written.
"""

import functools
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from lesa_jax.base.digests import digest
from lesa_jax.base.errors import FULL, InputError
from lesa_jax.training.checksums import checksums
from lesa_jax.training.state import TrainState

LONGEST = 160  # characters of a reason


class Checkpoints:
    """The checkpoints of one run, numbered by step, the latest `keep` of them kept.

    Attributes:
      folder: where they are.
      mesh: of the states.
      latest: the step of the last complete checkpoint that was there at the beginning, if there was one.
    """

    def __init__(self, folder: Path, keep: int, mesh: Mesh):
        """Opens the folder, or makes it.

        Raises:
          InputError: it is none, or what lies in it are no checkpoints.
        """
        self.folder, self.mesh = folder, mesh
        quiet_orbax()
        check_folder(folder)
        training: Any = ocp.training  # its annotations and its policies disagree
        try:
            self.orbax = training.Checkpointer(
                folder.absolute(),
                save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(1),  # the loop decides
                preservation_policy=training.preservation_policies.LatestN(keep),
                cleanup_tmp_directories=True,
            )
            newest = self.orbax.latest
        except Exception as error:
            raise InputError(
                f"{folder}: cannot be used ({first_line(error)}); remove from it what is not a run's checkpoint"
            ) from error
        self.latest: int | None = None if newest is None else newest.step

    def save(self, state: TrainState, step: int, facts: dict[str, Any]) -> None:
        """Copies the state and returns; writing goes on in the background. Waits for the save before.

        Args:
          state: to be saved; may be donated to the next step at once.
          step: how many steps it has seen.
          facts: JSON values that go with it.

        Raises:
          InputError: this save or the one before found no room; earlier checkpoints are untouched.
        """
        facts = facts | {"step": step, "checksums": checksums(state, self.mesh)}
        try:
            self.orbax.save_async(step, state, custom_metadata=facts | {"digest": digest(facts)})
        except Exception as error:
            raise self.explain(error) from error

    def facts(self) -> dict[str, Any]:
        """What was saved beside the latest state.

        Raises:
          InputError: it is damaged.
        """
        with self.reading():
            facts = dict(self.orbax.metadata(self.latest).custom_metadata or {})
            if facts.pop("digest", None) != digest(facts) or facts["step"] != self.latest:
                raise ValueError("its metadata changed since they were saved")
            return facts

    def restore(self, abstract: TrainState, facts: dict[str, Any]) -> TrainState:
        """The latest state, each array on the devices that `abstract` (shapes with shardings) names.

        Raises:
          InputError: it is damaged: it cannot be read, or is not what was saved with these `facts`.
        """
        with self.reading():
            state = self.orbax.load(self.latest, abstract)
            found = checksums(state, self.mesh)
            changed = [name for name, pair in facts["checksums"].items() if found.get(name) != pair]
            if changed or found.keys() != facts["checksums"].keys():
                raise ValueError(f"{[*changed, 'its tree'][0]} is not what was saved")
            return state

    def wait(self) -> None:
        """Until the last save is on the disk.

        Raises:
          InputError: it found no room.
        """
        try:
            self.orbax.wait()
        except Exception as error:
            raise self.explain(error) from error

    def close(self) -> None:
        """Waits as `wait` does, and ends the threads."""
        try:
            self.orbax.close()
        except Exception as error:
            raise self.explain(error) from error

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One line for whatever is wrong with the latest checkpoint: Orbax has many exceptions for damaged files."""
        try:
            yield
        except Exception as error:
            raise damaged(self.folder / str(self.latest), error) from error

    def explain(self, error: Exception) -> InputError:
        full = isinstance(error, OSError) and error.errno in FULL
        full = full or any(word in str(error) for word in ("No space left", "File too large", "quota exceeded"))
        reason = "the disk is full" if full else first_line(error)
        return InputError(
            f"{self.folder}: a checkpoint could not be written ({reason}); earlier ones are kept: free some space and "
            "run the same command again"
        )


def check_folder(folder: Path) -> None:
    """Refuses what Orbax would pass over, or fail on without saying which checkpoint it is.

    Raises:
      InputError: a file where a folder should be, or a checkpoint that cannot be one.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; move it away, the run's checkpoints belong there")
    for place in folder.glob("[0-9]*"):
        if place.name.isdigit():  # else it was not complete, and Orbax removes it
            try:
                ocp.checkpointables_metadata(str(place))
            except Exception as error:
                raise damaged(place, error) from error


def damaged(checkpoint: Path, error: Exception) -> InputError:
    return InputError(
        f"{checkpoint}: cannot be restored ({first_line(error)}); delete this folder to go on from the checkpoint "
        "before, or from the beginning"
    )


@functools.cache
def quiet_orbax() -> None:
    """For the rest of the process: what goes wrong is told by exceptions, in one line, and not by Orbax's loggers, too.

    After the first array that cannot be read it leaves the reading of others, which end when they please and complain.
    """
    for logger in ("absl", "asyncio"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    told = sys.unraisablehook

    def tell(unraisable: Any) -> None:
        left = "orbax" in getattr(getattr(unraisable.object, "cr_code", None), "co_filename", "")
        if not left and "Event loop is closed" not in str(unraisable.exc_value):
            told(unraisable)

    sys.unraisablehook = tell


def first_line(error: Exception) -> str:
    """What the error says, without the trees that Orbax shows."""
    line = (str(error) or type(error).__name__).strip().split("\n")[0]
    return line if len(line) <= LONGEST else line[:LONGEST] + " ..."
