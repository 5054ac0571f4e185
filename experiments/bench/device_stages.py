"""How fast this device multiplies and copies, and what LESA's stages take there at a real model's shapes.

Run by `device.py`; prints a JSON line for the device, and one for each stage that was measured. The weights are random
numbers: their spectrum is flat, so that the SVD needs one eigendecomposition; a trained model's may need a second one.

A step of the predictor depends on the length of its rows and on how many kinds of weight train together, not on how
many rows or layers there are: few are trained on here, and a whole model's seconds are a step's times its steps.
"""

import json
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from floors import matmul_rate, predictor_flops, seconds, svd_flops, update_rate

from lesa_jax.initializers.lesa.predict import RawRows, learn_together
from lesa_jax.initializers.lesa.svd import layer_svd, svd_programs
from lesa_jax.planning.methods import PUBLISHED, Lesa

STORED = jnp.bfloat16  # as the original's weights are
SAMPLED_LAYERS, SAMPLED_ROWS = 6, 1024  # that the predictor's step is measured on


@dataclass(frozen=True)
class Kinds:
    """Kinds of weight of one shape [out, fan_in], which train together."""

    names: tuple[str, ...]
    out: int
    fan_in: int

    def steps(self, layers: int) -> int:
        """Of a predictor, over all epochs."""
        return PUBLISHED.epochs * -(-(layers - 2) * self.out // PUBLISHED.batch_size)


@dataclass(frozen=True)
class Case:
    """A model's layers, and how large the products and copies are that the device is judged by."""

    name: str
    layers: int
    kinds: tuple[Kinds, ...]
    product: int
    copy: int


# The cheapest kinds come first: if the time runs out, it does so in the last.
CASES = {
    "8b": Case(
        "Llama-3-8B",
        32,
        (
            Kinds(("k", "v"), 1024, 4096),
            Kinds(("q", "o"), 4096, 4096),
            Kinds(("down",), 4096, 14336),
            Kinds(("gate", "up"), 14336, 4096),
        ),
        8192,
        1 << 31,
    ),
    "tiny": Case("tiny", 6, (Kinds(("q", "o"), 64, 64), Kinds(("down",), 64, 128)), 512, 1 << 24),
}


def main(case: Case) -> None:
    emit(describe_device(case))
    step_seconds = {}
    for kinds in case.kinds:
        together = len(kinds.names), kinds.fan_in
        if together not in step_seconds:
            step_seconds[together] = measure_step(*together)
    total = sum(kinds.steps(case.layers) * step_seconds[len(kinds.names), kinds.fan_in] for kinds in case.kinds)
    emit({"stage": f"{case.name}, all predictors (steps x seconds of a step)", "seconds": total})
    svd = sum(len(kinds.names) * measure_svd(case, kinds) for kinds in case.kinds)
    emit({"stage": f"{case.name}, all SVDs (one of each shape x kinds of the shape)", "seconds": svd})


def emit(row: dict[str, object]) -> None:
    print(json.dumps(row), flush=True)


def say(what: str) -> None:
    print(f"stages: {what}", file=sys.stderr, flush=True)


def describe_device(case: Case) -> dict[str, object]:
    """The device's kind, how many there are, and measured rates."""
    say("matrix products and copies")
    device = jax.local_devices()[0]
    return {
        "kind": device.device_kind,
        "devices": jax.device_count(),
        "memory": (device.memory_stats() or {}).get("bytes_limit"),
        "bfloat16": matmul_rate(case.product, jnp.bfloat16),
        "float32": matmul_rate(case.product),
        "copy": update_rate(case.copy),
    }


def measure_step(together: int, fan_in: int) -> float:
    """Prints and returns the seconds of a step of so many predictors at once."""
    say(f"{together} predictors of rows of {fan_in}")
    key = jax.random.key(0)
    rows = jax.random.normal(key, (together, SAMPLED_LAYERS, SAMPLED_ROWS, fan_in))
    basis = RawRows(rows, jnp.ones((together, SAMPLED_ROWS), bool))
    keys = list(jax.random.split(key, together))
    first, second = (seconds(lambda: learn_together(basis, keys, Lesa())) for _ in range(2))
    step = second / Kinds(("",) * together, SAMPLED_ROWS, fan_in).steps(SAMPLED_LAYERS)
    emit(
        {
            "stage": f"a step of {together} predictor(s), rows of {fan_in}",
            "seconds": step,
            "compiling": first - second,
            "flops": predictor_flops(together * PUBLISHED.batch_size, fan_in),
        }
    )
    return step


def measure_svd(case: Case, kinds: Kinds) -> float:
    """Prints and returns the seconds of one kind's SVD."""
    shape = case.layers, kinds.out, kinds.fan_in
    say(f"SVD of {list(shape)}")
    programs = svd_programs(jax.ShapeDtypeStruct(shape, STORED))
    compiling = seconds(lambda: [program.compile() for program in programs])
    keys = jax.random.split(jax.random.key(0), case.layers)
    weights = jax.jit(lambda keys: jax.lax.map(lambda key: jax.random.normal(key, shape[1:], STORED), keys))(keys)
    taken = seconds(lambda: layer_svd(jax.block_until_ready(weights)))
    flops = svd_flops(*shape)
    emit(
        {
            "stage": f"SVD of one of {', '.join(kinds.names)}: {list(shape)}",
            "seconds": taken,
            "compiling": compiling,
            "flops": flops,
        }
    )
    return taken


if __name__ == "__main__":
    main(CASES[sys.argv[1]])
