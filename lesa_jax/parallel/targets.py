"""Hardware that a program is compiled for without having it: TPU slices and NVIDIA GPUs, by their own compilers.

XLA's compilers run on any machine. They say how much memory a chip needs, which kernels run and what the chips tell
each other, and they fail where the device's compiler would fail.
"""

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import jax
from jax.experimental import topologies

from lesa_jax.base.errors import InputError

_G, _GIB = 1e9, 2**30


@dataclass(frozen=True)
class Chip:
    """One JAX device, by its data sheet.

    Attributes:
      platform: what JAX calls its kind of device.
      kind: what JAX calls the device.
      memory: bytes that a program may use.
      bandwidth: bytes a second between the chip and its memory.
      network: bytes a second that the chip sends to its neighbours while it receives as many.
      group: chips that are joined by this network; beyond it each sends `between` bytes a second.
    """

    platform: Literal["tpu", "gpu"]
    kind: str
    memory: float
    bandwidth: float
    network: float
    group: int | None = None
    between: float | None = None


# Google's pages of the TPU versions (cloud.google.com/tpu/docs) and NVIDIA's data sheet of the H100 SXM with ConnectX-7
# adapters, one for each GPU. Of a TPU's memory XLA keeps a quarter of a GiB. NVLink's 900 GB/s are both directions.
CHIPS = {
    "v5e": Chip("tpu", "TPU v5 lite", 15.75 * _GIB, 819 * _G, 200 * _G),
    "v5p": Chip("tpu", "TPU v5", 94.75 * _GIB, 2765 * _G, 600 * _G),
    "v6e": Chip("tpu", "TPU v6 lite", 31.25 * _GIB, 1640 * _G, 448 * _G),
    "h100": Chip("gpu", "NVIDIA H100 80GB HBM3", 84.978434048 * _G, 3352.32 * _G, 450 * _G, 8, 50 * _G),
}
COMPILERS = {
    "tpu": "pip install libtpu==0.0.42.1",
    "gpu": "pip install jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2 nvidia-cuda-nvcc-cu12==12.9.86 "
    "nvidia-cudnn-cu12==9.28.0.42",
}
MODULES = {"tpu": "libtpu", "gpu": "jax_plugins.xla_cuda12"}
PREALLOCATED = 0.75  # of a GPU's memory, which JAX takes at the start and never more than


@dataclass(frozen=True)
class Target:
    """Chips of one kind, as `--compile-for` names them: v5e:4x4, h100, h100x8."""

    name: str
    chip: Chip
    chips: int
    topology: str

    @property
    def network(self) -> float:
        """Bytes a second that a chip sends where all talk to all: the slowest way on it."""
        chip = self.chip
        return chip.between if chip.between and chip.group and self.chips > chip.group else chip.network


def parse_target(text: str) -> Target:
    """A target by its name.

    Raises:
      InputError: no such hardware, or a number of chips that it has not.
    """
    tpu = re.fullmatch(r"(v5e|v5p|v6e):([1-9]\d*(?:x[1-9]\d*){1,2})", text)
    gpu = re.fullmatch(r"(h100)(?:x([1-9]\d*))?", text)
    if tpu:
        sides = [int(side) for side in tpu[2].split("x")]
        if len(sides) == (3 if tpu[1] == "v5p" else 2):
            chips = sides[0] * sides[1] * (sides[2] if len(sides) == 3 else 1)
            return Target(text, CHIPS[tpu[1]], chips, text)
    elif gpu:
        chips, chip = int(gpu[2] or 1), CHIPS["h100"]
        assert chip.group is not None
        hosts, rest = divmod(chips, chip.group)
        if chips < chip.group or rest == 0:
            return Target(text, chip, chips, f"1x1x{chips}" if hosts == 0 else f"1x{hosts}x{chip.group}")
        raise InputError(f"--compile-for {text}: a node has {chip.group} GPUs; ask for 1 to 7 or for a multiple of 8")
    raise InputError(
        f"--compile-for {text}: expected a TPU slice such as v5e:4x4, v6e:4x4 or v5p:4x4x4, or GPUs such as h100, "
        "h100x8"
    )


def target_devices(target: Target) -> Sequence[Any]:
    """The target's chips as devices of a mesh, on which nothing can run.

    Raises:
      InputError: its compiler is not installed, does not know the topology, or JAX was in use before it could be told.
    """
    platform = target.chip.platform
    if not installed(MODULES[platform]):
        raise InputError(f"--compile-for {target.name}: needs the compiler: {COMPILERS[platform]}")
    try:
        if platform == "tpu":
            topology = topologies.get_topology_desc(platform="tpu", topology_name=target.topology)
        else:
            config = files("lesa_jax.parallel").joinpath("h100.textproto").read_text()
            topology = topologies.get_topology_desc("H100", "cuda", target_config=config, topology=target.topology)
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"--compile-for {target.name}: the compiler does not take it ({reason})") from error
    return topology.devices


def installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor can the package around it
        return False


def prepare_compilers() -> None:
    """Tells JAX, before it is used, that programs are compiled here and run nowhere."""
    jax.config.update("jax_platforms", "cpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # else libtpu asks the cloud which machine this is
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # a lock is for chips, of which there are none
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_autotune_level" not in flags:  # there is nothing to try kernels on
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0".strip()
