"""The shell scripts of tpu_scripts/, against a gcloud that only writes down how it was called."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "tpu_scripts"
ALL = sorted(path.name for path in (*SCRIPTS.glob("*.sh"), SCRIPTS / "slurm.sbatch"))
GCLOUD_SCRIPTS = ["create", "setup", "launch", "logs", "resume", "fetch", "delete"]

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
TRAINING = ["-m", "lesa_jax.train", "--model", 'models/it\'s "big" $HOME', "--data", "a b.jsonl", "--output"]
STEPS = ["delete", "create", "ssh", "ssh", "ssh", "ssh"]  # of resume.sh; setup.sh: two ssh, launch.sh: two
FETCHED = ("final", "metrics.jsonl", "loss.png")

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


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


@pytest.fixture
def host(tmp_path: Path, cloud: Cloud) -> Iterator[Path]:
    """A host's home directory, where `python` writes its arguments down and goes on until SIGTERM."""
    home = tmp_path / "home of host"
    python = home / "lesa_jax_env/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\0" "$@" >arguments\necho hello\n'
                      "trap 'echo saved; exit 0' TERM\nwhile :; do sleep 0.1; done\n")  # fmt: skip
    python.chmod(0o755)
    yield home
    cloud.run("launch.sh", "--stop", HOST_HOME=str(home))


def test_shellcheck_finds_nothing():
    shellcheck = Path(sys.executable).parent / "shellcheck"
    files = [*(SCRIPTS / name for name in ALL), SCRIPTS / "config.env.example"]
    result = subprocess.run([shellcheck, *files], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", ALL)
def test_scripts_are_short_strict_executable_and_parse(script: str):
    text = (SCRIPTS / script).read_text()
    assert len(text.splitlines()) < 100
    assert "\nset -euo pipefail\n" in text
    assert script == "slurm.sbatch" or os.access(SCRIPTS / script, os.X_OK)
    subprocess.run(["bash", "-n", SCRIPTS / script], check=True)


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("script", ALL)
def test_help_is_the_comment_at_the_top(script: str, option: str):
    result = subprocess.run(["bash", SCRIPTS / script, option], capture_output=True, text=True, check=True)
    second_line = (SCRIPTS / script).read_text().splitlines()[1]
    assert result.stdout.splitlines()[0] == second_line.removeprefix("# ")
    assert not any(line.startswith("#") or "set -euo" in line for line in result.stdout.splitlines())
    assert result.stderr == ""


def test_every_script_is_in_the_readme():
    readme = (SCRIPTS / "README.md").read_text()
    assert [name for name in ALL if f"`{name}`" not in readme] == []


def test_the_example_config_is_complete(cloud: Cloud):
    cloud.config.write_text((SCRIPTS / "config.env.example").read_text())
    for script in GCLOUD_SCRIPTS:
        assert cloud.run(f"{script}.sh", DRY_RUN="1").returncode == 0


@pytest.mark.parametrize("script", GCLOUD_SCRIPTS)
def test_a_dry_run_prints_commands_and_runs_none(script: str, cloud: Cloud):
    result = cloud.run(f"{script}.sh", DRY_RUN="1")
    assert result.returncode == 0, result.stderr
    printed = [line for line in result.stdout.splitlines() if line.startswith("gcloud ")]
    assert printed
    assert all("--project=my-project" in line for line in printed)
    assert cloud.calls() == []
    assert not (cloud.folder / "runs").exists()


def test_a_dry_run_prints_what_a_run_calls(cloud: Cloud):
    printed = cloud.run("create.sh", DRY_RUN="1")
    cloud.run("create.sh")
    lines = [line for text in (printed.stdout, printed.stderr) for line in text.splitlines() if "gcloud" in line]
    assert [shlex.split(line)[1:] for line in lines] == cloud.calls()


def test_a_dry_run_of_a_watch_ends(cloud: Cloud):
    result = cloud.run("resume.sh", "--watch", DRY_RUN="1")
    assert result.returncode == 0
    assert cloud.calls() == []


@pytest.mark.parametrize("script", GCLOUD_SCRIPTS)
def test_a_missing_setting_is_one_line_with_the_remedy(script: str, cloud: Cloud):
    cloud.set(ZONE="")
    result = cloud.run(f"{script}.sh")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert f"ZONE is not set: add ZONE=... to {cloud.config}" in result.stderr
    assert cloud.calls() == []


def test_a_missing_config_is_one_line_with_the_remedy(cloud: Cloud):
    cloud.config.unlink()
    result = cloud.run("create.sh")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "config.env.example" in result.stderr


@pytest.mark.parametrize("script", GCLOUD_SCRIPTS)
def test_unknown_arguments_are_refused(script: str, cloud: Cloud):
    result = cloud.run(f"{script}.sh", "--no-such-option")
    assert result.returncode == 2
    assert "--no-such-option" in result.stderr
    assert cloud.calls() == []


@pytest.mark.parametrize("spot", ["0", "1", ""])
def test_create_asks_for_spot_only_with_spot_1(spot: str, cloud: Cloud):
    cloud.set(SPOT=spot, NETWORK="'my net'")
    assert cloud.run("create.sh").returncode == 0
    create = cloud.calls()[0]
    assert create[:5] == ["compute", "tpus", "queued-resources", "create", "lesa-jax"]
    assert ("--spot" in create) == (spot == "1")
    assert {"--node-id=lesa-jax", "--accelerator-type=v5litepod-8", "--network=my net"} <= set(create)
    assert {"--runtime-version=v2-alpha-tpuv5-lite", "--project=my-project", "--zone=us-central1-a"} <= set(create)
    assert not any(option.startswith(("--subnetwork", "--service-account")) for option in create)


def test_create_waits_until_active_and_shows_every_state(cloud: Cloud):
    states = ("WAITING_FOR_RESOURCES", "PROVISIONING", "OFFLINE", "ACTIVE")
    cloud.states(*states)
    result = cloud.run("create.sh")
    assert result.returncode == 0
    shown = [line.split()[2] for line in result.stdout.splitlines()]
    assert shown == ["WAITING_FOR_RESOURCES", "PROVISIONING", "UNKNOWN", "ACTIVE"]
    assert cloud.verbs() == ["create"]


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_create_ends_when_the_request_fails(state: str, cloud: Cloud):
    cloud.states("WAITING_FOR_RESOURCES", state)
    result = cloud.run("create.sh")
    assert result.returncode == 1
    assert f"the request for lesa-jax is {state}, there will be no TPU" in result.stderr


def test_create_gives_up_in_the_end_and_can_go_on_waiting(cloud: Cloud):
    cloud.set(TIMEOUT_SECONDS="0")
    cloud.states("WAITING_FOR_RESOURCES")
    result = cloud.run("create.sh")
    assert result.returncode == 1
    assert "the request stays in the queue" in result.stderr
    cloud.states("ACTIVE")
    assert cloud.run("create.sh", "--wait").returncode == 0
    assert cloud.verbs() == ["create"]


def test_setup_prepares_all_hosts(cloud: Cloud):
    cloud.set(BUCKET="my-bucket", REVISION="'a b'")
    assert cloud.run("setup.sh").returncode == 0
    assert cloud.verbs() == ["ssh", "ssh"]
    assert all("--worker=all" in call for call in cloud.calls())
    command = cloud.commands()[-1]
    first = command.splitlines()[0]
    assert shlex.split(first) == [
        "REPOSITORY=https://example.org/lesa_jax.git", "REVISION=a b", "BUCKET=my-bucket", "DISTRIBUTED=0"
    ]  # fmt: skip
    assert '-e lesa_jax "jax[tpu]"' in command
    assert "jax.device_count()" in command
    subprocess.run(["bash", "-n", "-c", command], check=True)


def test_setup_copies_the_working_tree_without_a_repository(cloud: Cloud):
    cloud.set(REPOSITORY="")
    result = cloud.run("setup.sh", TMPDIR=str(cloud.folder))
    assert result.returncode == 0, result.stderr
    assert cloud.verbs() == ["ssh", "scp", "ssh"]
    assert {"--worker=all", "lesa-jax:lesa_jax_code.tar.gz"} <= set(cloud.calls()[1])


def test_setup_gives_up_on_hosts_that_do_not_answer(cloud: Cloud):
    result = cloud.run("setup.sh", FAILING="--command=true")
    assert result.returncode == 1
    assert "do not answer" in result.stderr
    assert cloud.verbs() == ["ssh"] * 6


@pytest.mark.parametrize(
    ("accelerator", "override", "distributed"),
    [("v5litepod-8", "", False), ("v6e-8", "", False), ("v5litepod-16", "", True), ("v6e-16", "", True),
     ("v6e-16", "0", False), ("v6e-8", "1", True)],
)  # fmt: skip
def test_several_hosts_run_distributed(accelerator: str, override: str, distributed: bool, cloud: Cloud):
    cloud.set(ACCELERATOR_TYPE=accelerator, DISTRIBUTED=override)
    assert cloud.run("setup.sh").returncode == 0
    assert cloud.run("launch.sh").returncode == 0
    setup, launch = cloud.commands()[1], cloud.commands()[-1]
    assert (" --distributed " in launch) == distributed
    assert f"DISTRIBUTED={int(distributed)}\n" in setup
    assert all("--worker=all" in call for call in cloud.calls())


def test_launch_detaches_keeps_arguments_refuses_a_second_and_stops(cloud: Cloud, host: Path):
    first = cloud.run("launch.sh", HOST_HOME=str(host))
    assert first.returncode == 0, first.stderr
    assert "started" in first.stdout
    assert (host / "arguments").read_text().split("\0")[:-1] == [*TRAINING, "runs/my run"]

    (host / "arguments").unlink()
    second = cloud.run("launch.sh", HOST_HOME=str(host))
    assert second.returncode == 1
    assert "already running here" in second.stdout
    assert "not started" in second.stderr
    assert not (host / "arguments").exists()

    assert cloud.run("launch.sh", "--stop", HOST_HOME=str(host)).returncode == 0
    log, deadline = host / "lesa_jax_train.log", time.monotonic() + 20
    while "saved" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert log.read_text() == "hello\nsaved\n"
    assert "nothing runs here" in cloud.run("launch.sh", "--stop", HOST_HOME=str(host)).stdout


def test_launch_shows_the_log_of_a_program_that_ends_at_once(cloud: Cloud, host: Path):
    (host / "lesa_jax_env/bin/python").write_text("#!/usr/bin/env bash\necho 'no such model'\nexit 2\n")
    result = cloud.run("launch.sh", HOST_HOME=str(host))
    assert result.returncode == 1
    assert "no such model" in result.stdout


def test_logs_follows_one_host(cloud: Cloud):
    assert cloud.run("logs.sh").returncode == 0
    assert cloud.run("logs.sh", "--worker", "3").returncode == 0
    assert cloud.run("logs.sh", "--worker", "all").returncode == 2
    assert [call[5] for call in cloud.calls()] == ["--worker=0", "--worker=3"]
    assert all("--command=tail -n 100 -F lesa_jax_train.log" in call for call in cloud.calls())


@pytest.mark.parametrize("state", ["SUSPENDED", "FAILED"])
def test_resume_deletes_creates_sets_up_and_launches(state: str, cloud: Cloud):
    cloud.states(state, "PROVISIONING", "ACTIVE")
    result = cloud.run("resume.sh")
    assert result.returncode == 0, result.stderr
    assert cloud.verbs() == STEPS
    assert "lesa_jax_env" in cloud.commands()[1]
    assert "lesa_jax.train" in cloud.commands()[-1]


def test_resume_sees_a_node_that_was_just_preempted(cloud: Cloud):
    assert cloud.run("resume.sh", NODE_STATE="PREEMPTED").returncode == 0
    assert cloud.verbs() == STEPS


def test_resume_creates_what_does_not_exist(cloud: Cloud):
    cloud.states("NOT_FOUND", "ACTIVE")
    assert cloud.run("resume.sh").returncode == 0
    assert cloud.verbs() == STEPS[1:]


@pytest.mark.parametrize("state", ["ACTIVE", "WAITING_FOR_RESOURCES", "SUSPENDING", "OFFLINE"])
def test_resume_touches_nothing_that_is_not_dead(state: str, cloud: Cloud):
    cloud.states(state)
    result = cloud.run("resume.sh")
    assert result.returncode == 1
    assert "nothing to recreate" in result.stderr
    assert cloud.verbs() == []


def test_resume_stops_at_the_first_step_that_fails(cloud: Cloud):
    cloud.states("SUSPENDED", "FAILED")
    assert cloud.run("resume.sh").returncode == 1
    assert cloud.verbs() == ["delete", "create"]


def test_a_watch_recreates_until_the_run_is_finished(cloud: Cloud):
    states = ["SUSPENDING", "SUSPENDED", "FAILED", "OFFLINE", "SUSPENDED", "ACTIVE", "ACTIVE"]
    cloud.states(*states)
    result = cloud.run("resume.sh", "--watch")
    assert result.returncode == 0, result.stderr
    assert "not created; trying again" in result.stdout
    assert cloud.verbs() == ["delete", "create", *STEPS, "ssh"]
    assert "--command=test -d runs/my\\ run/final" in cloud.calls()[-1]
    assert "finished" in result.stdout


def test_fetch_copies_from_worker_0(cloud: Cloud):
    result = cloud.run("fetch.sh", "my results", FAILING="loss.png")
    assert result.returncode == 0
    assert "no loss.png yet" in result.stderr
    link, *copies = cloud.calls()
    assert "--command=ln -sfn runs/my\\ run lesa_jax_fetch" in link
    assert [call[5] for call in copies] == [f"lesa-jax:lesa_jax_fetch/{name}" for name in FETCHED]
    assert all(call[6] == "my results/" and "--worker=0" in call for call in copies)
    assert (cloud.folder / "my results").is_dir()


def test_fetch_copies_from_the_bucket_without_a_tpu(cloud: Cloud):
    cloud.set(BUCKET="my-bucket", RUN_DIR="'bucket/runs/my run'")
    assert cloud.run("fetch.sh").returncode == 0
    assert [call[:2] for call in cloud.calls()] == [["storage", "cp"]] * 3
    assert [call[3:5] for call in cloud.calls()] == [
        [f"gs://my-bucket/runs/my run/{name}", "runs/my run/"] for name in FETCHED
    ]


def test_fetch_of_nothing_fails(cloud: Cloud):
    result = cloud.run("fetch.sh", FAILING="scp")
    assert result.returncode == 1
    assert "nothing found in runs/my run" in result.stderr


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "yesterday\n"])
def test_delete_does_nothing_without_a_yes(answer: str, cloud: Cloud):
    result = cloud.run("delete.sh", stdin=answer)
    assert result.returncode == 1
    assert "nothing deleted" in result.stderr
    assert cloud.calls() == []


@pytest.mark.parametrize(("arguments", "answer"), [((), "y\n"), ((), "yes\n"), (("--yes",), "")])
def test_delete_takes_node_and_queued_resource(arguments: tuple[str, ...], answer: str, cloud: Cloud):
    assert cloud.run("delete.sh", *arguments, stdin=answer).returncode == 0
    assert cloud.calls() == [
        ["compute", "tpus", "queued-resources", "delete", "lesa-jax", "--force", "--quiet",
         "--project=my-project", "--zone=us-central1-a"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "mesh"), [((), ["--mesh", "data=1,fsdp=-1,tensor=1"]), (("--mesh", "fsdp=2,tensor=2"), [])]
)
def test_multi_gpu_is_one_sharded_process(options: tuple[str, ...], mesh: list[str], cloud: Cloud):
    recorder = cloud.folder / "gcloud"  # as good a recorder as any
    arguments = ("--model", "a b", *options)
    assert cloud.run("multi_gpu.sh", *arguments, PYTHON=str(recorder)).returncode == 0
    assert cloud.calls() == [["-m", "lesa_jax.train", *mesh, *arguments]]
    printed = cloud.run("multi_gpu.sh", *arguments, DRY_RUN="1").stdout
    assert shlex.split(printed) == ["python", *cloud.calls()[0]]


@pytest.mark.parametrize(
    ("finished", "status", "restarts", "requeues"),
    [(False, 0, 0, True), (True, 0, 0, False), (False, 1, 0, False), (False, 0, 50, False)],
)
def test_slurm_requeues_a_saved_run(finished: bool, status: int, restarts: int, requeues: bool, cloud: Cloud):
    record = f'printf "%s\\n" "$(basename "$0")" "$@" >>"{cloud.folder}/slurm"'
    for name, code in (("srun", status), ("scontrol", 0)):
        (cloud.folder / name).write_text(f"#!/bin/sh\n{record}\nexit {code}\n")
        (cloud.folder / name).chmod(0o755)
    run = cloud.folder / "my run"
    (run / "final" if finished else run).mkdir(parents=True)
    environment = os.environ | {
        "PATH": f"{cloud.folder}:{os.environ['PATH']}", "RUN_DIR": str(run), "SLURM_JOB_ID": "7",
        "SLURM_RESTART_COUNT": str(restarts),
    }  # fmt: skip
    command = ["bash", SCRIPTS / "slurm.sbatch", "--model", "a b"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == status
    recorded = (cloud.folder / "slurm").read_text().splitlines()
    training = ["-m", "lesa_jax.train", "--model", "a b", "--output", str(run), "--distributed"]
    assert recorded[:10] == ["srun", "--kill-on-bad-exit=1", "python", *training]
    assert recorded[10:] == (["scontrol", "requeue", "7"] if requeues else [])
