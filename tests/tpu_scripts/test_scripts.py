"""What all scripts of tpu_scripts/ share, and those that need no gcloud."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cloud import SCRIPTS, Cloud

ALL = sorted(path.name for path in (*SCRIPTS.glob("*.sh"), SCRIPTS / "slurm.sbatch"))
GCLOUD_SCRIPTS = ["create", "setup", "launch", "logs", "resume", "fetch", "delete"]


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
