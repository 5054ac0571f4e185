"""A TPU from request to deletion: what each script of tpu_scripts/ asks of gcloud, and what runs on the hosts."""

import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cloud import Cloud

TRAINING = ["-m", "lesa_jax.train", "--model", 'models/it\'s "big" $HOME', "--data", "a b.jsonl", "--output"]
STEPS = ["delete", "create", "ssh", "ssh", "ssh", "ssh"]  # of resume.sh; setup.sh: two ssh, launch.sh: two
FETCHED = ("final", "metrics.jsonl", "loss.png")


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
