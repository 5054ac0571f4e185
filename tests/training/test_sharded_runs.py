"""However many devices and processes share the work, the losses are the same."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lesa_jax.checkpoint.reader import open_checkpoint, read
from tests.support.devices import environment_of
from tests.support.training import OPTIONS, finish, losses, rows, start

FACTORISATIONS = [
    f"data={data},fsdp={fsdp},tensor={8 // data // fsdp}"
    for data in (1, 2, 4, 8)
    for fsdp in (1, 2, 4, 8)
    if data * fsdp <= 8
]


def launch(place: Path, meshes: list[str], devices: int, **environment: str) -> subprocess.Popen:
    env = environment_of(devices, **environment)
    command = [sys.executable, "-m", "tests.support.mesh_losses", str(place), *meshes]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results(process: subprocess.Popen) -> list[dict[str, list[float]]]:
    return [json.loads(line) for line in finish(process).splitlines() if line.startswith("{")]


def together(begin: Callable[..., subprocess.Popen]) -> list[subprocess.Popen]:
    """Two processes that find each other; `begin` starts one, with the environment that it is given."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [
        begin(JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES="2", JAX_PROCESS_ID=str(number)) for number in range(2)
    ]


@pytest.fixture(scope="module")
def one_device(place: Path) -> dict[str, list[float]]:
    return results(launch(place, ["data=1"], 1))[0]


def assert_same(found: dict[str, list[float]], expected: dict[str, list[float]]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(
            np.array(found[name], float), np.array(values, float), rtol=1e-5 if "loss" in name else 1e-3, err_msg=name
        )


@pytest.mark.slow
def test_eight_devices_give_the_losses_of_one(place, one_device):
    meshes = ["data=2,fsdp=2,tensor=2"]
    for found in results(launch(place, meshes, 8)):
        assert_same(found, one_device)


@pytest.mark.slow
def test_every_factorisation_of_eight_devices_gives_the_losses_of_one(place, one_device):
    found = results(launch(place, FACTORISATIONS, 8))
    assert len(found) == len(FACTORISATIONS) == 10
    for result in found:
        assert_same(result, one_device)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["fsdp=-1", "data=2,tensor=4", "tensor=8"])
def test_two_processes_give_the_losses_of_one(place, one_device, mesh):
    processes = together(lambda **environment: launch(place, ["--distributed", mesh], 4, **environment))
    first, second = (results(process) for process in processes)
    assert_same(first[0], one_device)
    assert second == []
    final = place / f"run-2-8-{mesh}" / "final"
    assert open_checkpoint(final).entries.keys() == open_checkpoint(place / "grown").entries.keys()


def until(run: Path, step: int, processes: list[subprocess.Popen]) -> None:
    """Waits for the record of a step."""
    while not (run / "metrics.jsonl").exists() or len(losses(run)) < step:
        assert all(process.poll() is None for process in processes), [process.communicate() for process in processes]
        time.sleep(0.02)


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_stops_both_and_they_go_on(place):
    """As preemptions arrive, first on one host, then on the other. The losses are those of a run without any."""
    arguments = ["--model", str(place / "grown"), "--data", str(place / "data.jsonl"), *OPTIONS, "--steps", "40"]
    arguments += ["--mesh", "data=2,fsdp=2", "--distributed", "--save-every", "7", "--hold-out", "0"]

    def two(output: Path) -> list[subprocess.Popen]:
        return together(lambda **environment: start(*arguments, "--output", str(output), devices=2, **environment))

    whole, output = place / "whole-of-two", place / "stopped-twice"
    for process in two(whole):
        finish(process)
    done = 0
    for number in range(2):
        processes = two(output)
        until(output, done + 3, processes)
        processes[number].send_signal(signal.SIGTERM)
        for process in processes:
            assert "run the same command again to go on" in finish(process)
        done = len(losses(output))
        assert done < 40
        assert max(int(path.name) for path in (output / "checkpoints").iterdir()) == done
        assert not (output / "final").exists()
    for process in two(output):
        finish(process)
    assert [row["step"] for row in rows(output)] == list(range(1, 41))
    assert losses(output) == losses(whole)
    assert (output / "final").exists()


@pytest.mark.slow
def test_checkpoints_of_eight_devices_go_on_with_two_and_one(place):
    arguments = ["--model", str(place / "grown"), "--data", str(place / "data.jsonl"), *OPTIONS, "--save-every", "2"]
    whole = place / "whole"
    finish(start(*arguments, "--output", str(whole), "--mesh", "fsdp=4,tensor=2", devices=8))
    for devices in (2, 1):
        output = place / f"on-{devices}"
        shutil.copytree(whole, output)
        shutil.rmtree(output / "checkpoints" / "6")
        shutil.rmtree(output / "final")
        finish(start(*arguments, "--output", str(output), devices=devices))
        np.testing.assert_allclose(losses(output), losses(whole), rtol=1e-5)
        for name in ("model.layers.2.mlp.up_proj.weight", "model.layers.4.self_attn.q_proj.weight"):
            ours, theirs = (read(open_checkpoint(run / "final"), name) for run in (output, whole))
            assert np.linalg.norm(ours - theirs) < 1e-3 * np.linalg.norm(theirs)
