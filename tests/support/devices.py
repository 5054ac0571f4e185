"""The environment of processes that tests start."""

import os


def environment_of(devices: int = 1, **more: str) -> dict[str, str]:
    """With so many CPU devices. Several take no compiled programs from the cache: such ones' devices may wait for each
    other until XLA gives up (jax 0.10.2 on two cores), where the same programs, compiled by the process itself, do not.
    """
    own = {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    return os.environ | own | ({"JAX_ENABLE_COMPILATION_CACHE": "false"} if devices > 1 else {}) | more
