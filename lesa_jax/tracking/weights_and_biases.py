"""The numbers of a run in Weights & Biases, on its server or, with WANDB_MODE=offline, in the run's folder."""

import os
import secrets
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_json, write_json

RECORD = "wandb.json"  # in the run's folder: the id by which wandb knows the run
PROJECT = "lesa_jax"  # unless WANDB_PROJECT names another
REMEDY = "run `wandb login`, or set WANDB_MODE=offline, or leave wandb out"


def check_installed() -> None:
    """Raises InputError, with what to do, where the package is missing."""
    if find_spec("wandb") is None:
        raise InputError("--tracker wandb: needs a package that is missing: pip install wandb")


def sign_in_to_wandb() -> None:
    """Asks for a key where there is none, on a terminal.

    Raises:
      InputError: elsewhere.
    """
    import wandb  # slow to import

    if wandb.setup().settings.mode != "online":
        return
    try:
        wandb.login()
    except wandb.Error as error:
        raise InputError(f"--tracker wandb: {_line(error)}; {REMEDY}") from None


class WandbRun:
    """A run that wandb takes the numbers of. What becomes of them there never ends the training."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        """Begins a run, or goes on with the one that the folder belongs to.

        Args:
          folder: of the run; keeps its id in wandb.json, and wandb's own files in wandb/.
          settings: shown as the run's configuration.

        Raises:
          InputError: wandb does not take the run; wandb.json is damaged.
        """
        import wandb  # slow to import

        try:
            self.run: Any = wandb.init(
                id=run_id(folder),
                resume="allow",
                dir=str(folder),
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=os.environ.get("WANDB_NAME", folder.resolve().name),
                config=dict(settings),
                settings=wandb.Settings(console="off"),  # stderr has a line that is drawn anew and anew
            )
        except wandb.Error as error:
            raise InputError(f"--tracker wandb: {_line(error)}; {REMEDY}") from None
        # A run that goes on from a checkpoint does steps again that wandb has; their numbers are the same.
        self.next_step: int = self.run.starting_step

    def write(self, step: int, values: Mapping[str, float | int]) -> None:
        if self.run is None or step < self.next_step:
            return
        try:
            self.run.log(dict(values), step=step)
        except Exception as error:  # whatever it is, the run itself is well
            self._give_up(error)

    def close(self, failed: bool) -> None:
        if self.run is None:
            return
        try:
            self.run.finish(exit_code=int(failed))
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.run = None
        print(f"wandb takes no more numbers ({_line(error)}); metrics.jsonl has them all", file=sys.stderr)


def run_id(folder: Path) -> str:
    """The id by which wandb knows the run of a folder; made where there is none yet.

    Raises:
      InputError: wandb.json is there and has none.
    """
    record = folder / RECORD
    if not record.exists():
        write_json(record, {"id": secrets.token_hex(4)})
    known = read_json(record, "").get("id")
    if not isinstance(known, str) or not known:
        raise InputError(f"{record}: has no id; remove it to begin another run in wandb")
    return known


def _line(error: Exception) -> str:
    """Its first sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".")
