"""Run by tests/training/test_sharding.py in processes of their own: a short training on each mesh that is named.

    python -m tests.support.mesh_losses FOLDER MESH...

Prints, for each mesh, a line of JSON: losses of all steps and the held-out losses.
"""

import json
import sys
from pathlib import Path

import jax

from lesa_jax.parallel.processes import join_processes
from lesa_jax.training.run import train
from tests.support.settings import train_settings


def main(folder: Path, meshes: list[str]) -> None:
    if "--distributed" in meshes:
        meshes.remove("--distributed")
        join_processes()
    for mesh in meshes:
        output = folder / f"run-{jax.process_count()}-{jax.device_count()}-{mesh}"
        changes = {"steps": 4, "batch_size": 16, "accumulate": 2, "eval_every": 2, "mesh": mesh}
        tokens = folder / f"tokens-{jax.process_index()}"
        train(train_settings(folder, output.name, token_cache=tokens, save_every=500, **changes))
        if jax.process_index() == 0:
            rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
            print(json.dumps({name: [row[name] for row in rows] for name in ("loss", "eval_loss", "grad_norm")}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
