"""A gcloud that only writes down how it was called, and a config.env for the scripts of tpu_scripts/."""

import os
import subprocess
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "tpu_scripts"

CONFIG = """
PROJECT=my-project
ZONE=us-central1-a
TPU_NAME=lesa-jax
ACCELERATOR_TYPE=v5litepod-8
RUNTIME_VERSION=v2-alpha-tpuv5-lite
REPOSITORY=https://example.org/lesa_jax.git
REVISION=main
RUN_DIR='runs/my run'
RUN_COMMAND=(python -m lesa_jax.train --model "models/it's \\"big\\" \\$HOME" --data 'a b.jsonl')
POLL_SECONDS=0
"""

# Writes its arguments to calls/N; `describe` answers with the next line of states, and stays at the last one;
# with HOST_HOME, a command for the hosts runs there.
GCLOUD = r"""#!/usr/bin/env bash
here=$(dirname "$0")
printf '%s\0' "$@" >"$here/calls/$(find "$here/calls" -type f | wc -l)"
case "$*" in
    *"queued-resources describe"*)
        state=$(head -n 1 "$here/states")
        if (($(wc -l <"$here/states") > 1)); then sed -i 1d "$here/states"; fi
        if [[ $state == NOT_FOUND ]]; then echo "ERROR: NOT_FOUND: no such resource" >&2; exit 1; fi
        if [[ $state == OFFLINE ]]; then echo "ERROR: no network" >&2; exit 1; fi
        echo "$state" ;;
    *"tpu-vm describe"*) echo "${NODE_STATE:-READY}" ;;
    *"$FAILING"*) exit 1 ;;
    *"tpu-vm ssh"*)
        for argument in "$@"; do
            if [[ $argument == --command=* && -n ${HOST_HOME:-} ]]; then
                cd "$HOST_HOME" && HOME=$HOST_HOME bash -c "${argument#--command=}" || exit
            fi
        done ;;
esac
"""


class Cloud:
    """A folder with the stub, its records and a config.env."""

    def __init__(self, folder: Path):
        self.folder, self.config = folder, folder / "my config.env"
        self.config.write_text(CONFIG)
        (folder / "calls").mkdir()
        (folder / "gcloud").write_text(GCLOUD)
        (folder / "gcloud").chmod(0o755)
        self.states("ACTIVE")

    def states(self, *states: str) -> None:
        (self.folder / "states").write_text("".join(f"{state}\n" for state in states))

    def set(self, **settings: str) -> None:
        with self.config.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())

    def run(self, script: str, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess:
        path = f"{self.folder}:{os.environ['PATH']}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "DRY_RUN"))}
        return subprocess.run(
            [SCRIPTS / script, *arguments],
            env=clean | {"PATH": path, "CONFIG": str(self.config), "FAILING": "(none)"} | environment,
            input=stdin, capture_output=True, text=True, timeout=60, cwd=self.folder, check=False,
        )  # fmt: skip

    def calls(self) -> list[list[str]]:
        records = sorted((self.folder / "calls").iterdir(), key=lambda path: int(path.name))
        return [path.read_text().split("\0")[:-1] for path in records]

    def verbs(self) -> list[str]:
        """`create`, `ssh` and so on, without the looks at the state."""
        return [call[3] for call in self.calls() if call[3] != "describe"]

    def commands(self) -> list[str]:
        """What was sent to all hosts."""
        sent = [call for call in self.calls() if "--worker=all" in call and "ssh" in call]
        return [argument.removeprefix("--command=") for call in sent for argument in call if "--command=" in argument]
