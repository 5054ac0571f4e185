"""Grows configs in a process of its own, which hides torch from transformers."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.planning.config import grow_config
from lesa_jax.planning.plan import Plan


def grow_configs_apart(config: Mapping[str, Any], plans: Sequence[Plan]) -> list[dict[str, Any] | InputError]:
    """`grow_config` for each plan, in a process of its own when torch is installed and transformers not yet imported.

    transformers imports torch if it finds it, even to read a config: 2 seconds and 0.2 GB that expansion has no use
    for. The other process hides torch from it.

    Returns:
      For each plan the config, or why there is none.
    """
    if "transformers" in sys.modules or importlib.util.find_spec("torch") is None:
        return [config_or_error(config, plan) for plan in plans]
    task = json.dumps({"config": config, "plans": [plan.to_json() for plan in plans]})
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "lesa_jax.planning.config_process"],
        input=task,
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(f"the process that reads configs failed:\n{done.stderr}")
    answers = json.loads(done.stdout)
    return [InputError(answer["error"]) if "error" in answer else answer["config"] for answer in answers]


def config_or_error(config: Mapping[str, Any], plan: Plan) -> dict[str, Any] | InputError:
    try:
        return grow_config(config, plan)
    except InputError as error:
        return error


def answer_task() -> None:
    """The other side of `grow_configs_apart`: a task on stdin, its answer on stdout."""
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType] (what Python documents for hiding a module)
    task = json.load(sys.stdin)
    grown = [config_or_error(task["config"], Plan.from_json(plan)) for plan in task["plans"]]
    json.dump([{"error": str(g)} if isinstance(g, InputError) else {"config": g} for g in grown], sys.stdout)


if __name__ == "__main__":
    answer_task()
